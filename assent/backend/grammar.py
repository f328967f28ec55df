# SPDX-License-Identifier: Apache-2.0
"""The words of `assent-backend`: its verbs, their arguments, their help.

Law: help leads with examples (clig.dev); a word that is off is told on stderr and exits with 2; no
secret is ever an argument.
"""

from __future__ import annotations

import argparse
import pathlib
from importlib.metadata import version
from typing import Final, NoReturn, TypeAlias, get_args

from assent.backend.export import FORMATS
from assent.backend.report import REPORTS
from assent.errors import UsageError
from assent.policy.model import Role

_EXAMPLES: Final = """\
  assent-backend keygen maker --recipient maker --policy-key   keys, certificates, policy lines
  assent-backend sign-policy policy.toml --key maker/keys/policy.key.cose
  assent-backend bundle policy.toml --policy-key maker/keys/policy.pub.cose --out maker.bundle
  assent-backend publish maker.bundle maker                    rows may stand under its terms
  assent-backend admit maker maker.request --out maker.admission
  assent-backend broker maker --out /etc/assent-broker         a mosquitto for its gateways
  assent-backend run maker --broker mqtts://localhost:8883     subscribe until SIGTERM
  assent-backend show maker flows --json
  assent-backend export maker remote-diagnosis >diagnosis.jsonl"""

_DIR: Final = "the recipient's directory, made by keygen"


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with examples (clig.dev) and whose errors exit with 2."""

    examples = ""

    def format_help(self) -> str:
        """Examples first, then what argparse knows."""
        return f"Examples:\n{self.examples}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """Says what is off and how to see more, on stderr."""
        self.exit(UsageError.exit_code, f"assent-backend: {message}\n  see: {self.prog} --help\n")


_Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001  # it has no public name


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="assent-backend",
        description="The recipient's end: keys, policies, gateways, and what they delivered.",
        allow_abbrev=False,
    )
    top.examples = _EXAMPLES
    top.add_argument("--version", action="version", version=version("assent"))
    verbs = top.add_subparsers(metavar="VERB", required=True)
    _add_keygen(verbs)
    _add_policy_verbs(verbs)
    _add_publish(verbs)
    _add_admit(verbs)
    _add_broker(verbs)
    _add_run(verbs)
    _add_show(verbs)
    _add_export(verbs)
    return top


def _add(verbs: _Verbs, name: str, summary: str, examples: str) -> Parser:
    added = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    added.examples = examples
    added.set_defaults(verb=name)
    return added


def _add_json(verb: Parser) -> None:
    verb.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_keygen(verbs: _Verbs) -> None:
    keygen = _add(
        verbs,
        "keygen",
        "make a backend directory with new keys and certificates; print a table for the policy",
        "  assent-backend keygen maker --recipient maker --policy-key --role controller"
        " --region CN --host ingest.example.com",
    )
    keygen.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    keygen.add_argument("--recipient", required=True, help="the recipient's id in the policy")
    keygen.add_argument(
        "--classical",
        action="store_true",
        help="seal to X25519 alone, 1.1 kB less per batch, instead of the post-quantum hybrid",
    )
    keygen.add_argument(
        "--policy-key", action="store_true", help="make a key that signs policies, too"
    )
    keygen.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address of the broker besides localhost; may be given again",
    )
    keygen.add_argument(
        "--role", default="", choices=get_args(Role), help="what it is to the household"
    )
    keygen.add_argument("--region", default="", help="where it is, ISO 3166, such as CN")
    _add_json(keygen)


def _add_policy_verbs(verbs: _Verbs) -> None:
    sign = _add(
        verbs,
        "sign-policy",
        "sign a policy that has no findings; writes POLICY.cose beside it",
        "  assent-backend sign-policy policy.toml --key maker/keys/policy.key.cose",
    )
    sign.add_argument("policy", type=pathlib.Path, metavar="POLICY")
    sign.add_argument("--key", type=pathlib.Path, required=True, help="private policy key")
    bundle = _add(
        verbs,
        "bundle",
        "put a signed policy and every file it names into one file for gateways",
        "  assent-backend bundle policy.toml --policy-key maker/keys/policy.pub.cose"
        " --out maker.bundle",
    )
    bundle.add_argument("policy", type=pathlib.Path, metavar="POLICY")
    bundle.add_argument("--policy-key", type=pathlib.Path, required=True, help="public policy key")
    bundle.add_argument("--out", type=pathlib.Path, required=True, help="where to write it")
    for verb in (sign, bundle):
        verb.add_argument(
            "--files",
            type=pathlib.Path,
            metavar="ROOT",
            help="what the file names in the policy are relative to (default: beside the policy)",
        )
        _add_json(verb)


def _add_publish(verbs: _Verbs) -> None:
    publish = _add(
        verbs,
        "publish",
        "take a maker's bundle into a backend directory: rows may stand under its terms",
        "  assent-backend publish maker.bundle maker\n"
        "  assent-backend publish maker.bundle maker advice",
    )
    publish.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE", help="what bundle wrote")
    publish.add_argument("directories", type=pathlib.Path, metavar="DIR", nargs="+", help=_DIR)
    _add_json(publish)


def _add_admit(verbs: _Verbs) -> None:
    admit = _add(
        verbs,
        "admit",
        "let a gateway in: check its request, sign its certificate, write the admission",
        "  assent-backend admit maker maker.request --out maker.admission",
    )
    admit.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    admit.add_argument("request", type=pathlib.Path, metavar="REQUEST", help="from the gateway")
    admit.add_argument(
        "--out", type=pathlib.Path, help="the admission (default: REQUEST with .admission)"
    )
    _add_json(admit)


def _add_broker(verbs: _Verbs) -> None:
    broker = _add(
        verbs,
        "broker",
        "write all that a mosquitto needs: a mailbox for each gateway, nothing dropped",
        "  assent-backend broker maker --out /etc/assent-broker --user mosquitto\n"
        "  mosquitto -c /etc/assent-broker/mosquitto.conf",
    )
    broker.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    broker.add_argument("--out", type=pathlib.Path, required=True, help="a directory of its own")
    broker.add_argument("--port", type=int, default=8883, help="TCP port (default 8883)")
    broker.add_argument("--address", default="0.0.0.0", help="where to listen (default all)")  # noqa: S104  # a broker is there to be reached
    broker.add_argument(
        "--user", help="the account mosquitto runs as (default: mosquitto for root, else your own)"
    )
    _add_json(broker)


def _add_run(verbs: _Verbs) -> None:
    run = _add(
        verbs,
        "run",
        "subscribe, verify, open, store and acknowledge until SIGTERM",
        "  assent-backend run maker --broker mqtts://localhost:8883",
    )
    run.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    run.add_argument("--broker", required=True, metavar="URL", help="mqtts://host:port")
    run.add_argument(
        "--ca", type=pathlib.Path, help="what the broker is judged by (default: DIR/tls/ca.pem)"
    )


def _add_show(verbs: _Verbs) -> None:
    show = _add(
        verbs,
        "show",
        "show what was delivered, by whom, and what was refused; also while it runs",
        "  assent-backend show maker\n"
        "  assent-backend show maker quarantine\n"
        "  assent-backend show maker gaps           exits with 1 when nothing explains a hole\n"
        "  assent-backend show maker data --flow remote-diagnosis --limit 20 --json",
    )
    show.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    show.add_argument(
        "what",
        nargs="?",
        default="flows",
        choices=sorted([*REPORTS, "gaps"]),
        help="default flows; it stands before --flow and --limit",
    )
    show.add_argument("--flow", help="only this flow; needed for data")
    show.add_argument(
        "--limit", type=int, default=50, metavar="N", help="at most so many rows (default 50)"
    )
    _add_json(show)


def _add_export(verbs: _Verbs) -> None:
    export = _add(
        verbs,
        "export",
        "write all readings of a flow to stdout, one a line",
        "  assent-backend export maker remote-diagnosis >diagnosis.jsonl\n"
        "  assent-backend export maker remote-diagnosis --format csv >diagnosis.csv",
    )
    export.add_argument("directory", type=pathlib.Path, metavar="DIR", help=_DIR)
    export.add_argument("flow", metavar="FLOW")
    export.add_argument(
        "--format", default="jsonl", choices=sorted(FORMATS), help="default jsonl: JSON lines"
    )
