# SPDX-License-Identifier: Apache-2.0
"""The policy as typed, validated values: attributes, recipients, flows, and how terms compare.

`expressions` reads the transforms, `model` has the types of `policy.toml`, `lints` says what is
wrong with one, `terms` are what a person agrees to, `signing` signs, verifies and opens it.
"""
