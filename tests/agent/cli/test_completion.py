# SPDX-License-Identifier: Apache-2.0
"""The completions that are shipped know every verb, and a real shell completes by them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tools.completion import PLACE, scripts


def completed(*words: str) -> set[str]:
    """What bash offers for a line whose last word is not finished."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source {PLACE / words[0]}\n"
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        f"_shtab_{words[0].replace('-', '_')} {words[0]} '{words[-1]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", scripts())
def test_what_is_shipped_is_what_the_parsers_say(name: str) -> None:
    assert (PLACE / name).read_text() == scripts()[name], "type: make completion"


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not on this machine")
def test_bash_completes_verbs_acts_and_options() -> None:
    assert completed("assent", "d") == {"devices", "doctor"}
    assert completed("assent", "consent", "wi") == {"withdraw"}
    assert completed("assent", "status", "--j") == {"--json"}
    assert {"keygen", "export"} <= completed("assent-backend", "")
