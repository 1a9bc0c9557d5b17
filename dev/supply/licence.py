"""Licence expressions of SPDX, as Cargo.toml has them: which licences to take so that an allow list suffices.

Called by dev/supply/rules.py. Grammar (SPDX 2.3, annex D): WITH binds closest, then AND, then OR; "/" is OR in
manifests from before 2018.
"""

import re

TOKEN = re.compile(r"\s*([()/]|[A-Za-z0-9][A-Za-z0-9.+:-]*)\s*")
WORDS = ("AND", "OR", "WITH")


class Malformed(ValueError):
    """The expression cannot be read; the message says where."""


def choose(expression, allowed):
    """The licences out of `allowed` that satisfy the expression, as a set: of an OR all that may be taken, of an AND all
    that have to be. None where `allowed` does not suffice. Raises Malformed."""
    tokens = _tokens(expression)
    chosen = _any_of(tokens, allowed)
    if tokens:
        raise Malformed(f"{expression!r} goes on with {tokens[0]!r} where it should end")
    return chosen


def _tokens(expression):
    tokens, position = [], 0
    while position < len(expression):
        match = TOKEN.match(expression, position)
        if not match:
            raise Malformed(f"{expression!r} has {expression[position]!r} in it")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _any_of(tokens, allowed):
    ways = [_all_of(tokens, allowed)]
    while tokens and tokens[0] in ("OR", "/"):
        tokens.pop(0)
        ways.append(_all_of(tokens, allowed))
    possible = [way for way in ways if way is not None]
    return set().union(*possible) if possible else None


def _all_of(tokens, allowed):
    parts = [_one(tokens, allowed)]
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        parts.append(_one(tokens, allowed))
    return None if None in parts else set().union(*parts)


def _one(tokens, allowed):
    if tokens and tokens[0] == "(":
        tokens.pop(0)
        chosen = _any_of(tokens, allowed)
        if not tokens or tokens.pop(0) != ")":
            raise Malformed("a parenthesis is not closed")
        return chosen
    licence = _name(tokens)
    if tokens and tokens[0] == "WITH":
        tokens.pop(0)
        # An exception only gives more rights, but which ones is for a person to read: the pair is a name of its own.
        licence = f"{licence} WITH {_name(tokens)}"
    for name in (licence, licence.removesuffix("+")):  # "or later" includes the one it names
        if name in allowed:
            return {name}
    return None


def _name(tokens):
    if not tokens or tokens[0] in WORDS or tokens[0] in "()/":
        raise Malformed(f"a licence is missing before {tokens[0] if tokens else 'the end'!r}")
    return tokens.pop(0)
