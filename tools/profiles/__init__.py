# SPDX-License-Identifier: Apache-2.0
"""Makes device profiles from what others found out about registers: `make profiles`.

Path: facts (recorded data, facts/*.toml) → one room for each way of telling → **Map** → page.
Law:
  - what the facts do not say is not guessed: a register without a scale gives no field, a map
    without fields gives no profile, and each refusal is told with its reason;
  - a quantity that has no place in the vocabulary is left out, and told;
  - the same facts give the same bytes.

docs/profiles.md is for people who write one by hand.
"""
