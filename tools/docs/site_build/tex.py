"""TeX formulas to MathML, which browsers set by themselves: no script, no font and no image, and it follows the theme.

Covers the mathematics that docstrings use. A command that is not known raises `TexError`, which the build turns into a
warning, and so into a failure: a formula that does not come out is noticed by whoever writes it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from site_build import symbols

__all__ = ["TexError", "to_mathml"]

_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)


class TexError(ValueError):
    """A formula cannot be set."""


def to_mathml(tex: str, *, display: bool = False) -> str:
    r"""A formula as a `<math>` element.

    >>> to_mathml(r"\alpha^2")
    '<math alttext="\\alpha^2"><mrow><msup><mi>α</mi><mn>2</mn></msup></mrow></math>'

    Raises:
        TexError: a command is not known, or braces do not match.
    """
    source = " ".join(tex.split())
    mode = ' display="block"' if display else ""
    return f'<math{mode} alttext="{html.escape(source)}">{_Parser(source, display).formula()}</math>'


class _Parser:
    def __init__(self, source: str, display: bool) -> None:
        self.source = source
        self.display = display
        self.tokens = _TOKEN.findall(source)
        self.position = 0

    def formula(self) -> str:
        body = self.row(())
        if self.position < len(self.tokens):
            raise self.error(f"{self.tokens[self.position]!r} was not opened")
        return body

    def error(self, what: str) -> TexError:
        return TexError(f"{what} in the formula {self.source}")

    def peek(self) -> str:
        while self.position < len(self.tokens) and self.tokens[self.position].isspace():
            self.position += 1
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise self.error("something is missing at the end")
        self.position += 1
        return token

    def row(self, stop: tuple[str, ...]) -> str:
        """Everything up to one of the stop tokens, which stays."""
        parts = []
        while (token := self.peek()) and token not in stop and token not in ("}", "\\right", "\\end", "&", "\\\\"):
            parts.append(self.scripted())
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        """An atom with its subscript and superscript."""
        base, limits = self.atom()
        below = above = ""
        while (token := self.peek()) in ("_", "^", "'"):
            self.take()
            if token == "_":
                below = self.argument()
            else:
                above += "<mo>′</mo>" if token == "'" else self.argument()
        above = f"<mrow>{above}</mrow>" if above.count("<mo>′</mo>") > 1 else above
        kind = ("under", "over") if limits and self.display else ("sub", "sup")
        if below and above:
            return f"<m{''.join(kind)}>{base}{below}{above}</m{''.join(kind)}>"
        if below or above:
            name = kind[0] if below else kind[1]
            return f"<m{name}>{base}{below or above}</m{name}>"
        return base

    def argument(self) -> str:
        if self.peek() == "{":
            return self.group()
        if len(self.peek()) > 1 and self.peek().isdigit():
            # TeX takes one digit, not the whole number: \frac12 is one half.
            digits = self.take()
            self.position -= 1
            self.tokens[self.position] = digits[1:]
            return f"<mn>{digits[0]}</mn>"
        return self.atom()[0]

    def group(self) -> str:
        self.take()
        body = self.row(())
        if self.take() != "}":
            raise self.error("a brace is not closed")
        return body

    def raw(self) -> str:
        """The text of a group, as it stands."""
        if self.peek() != "{":
            return self.take()
        self.take()
        start, depth = self.position, 1
        while depth:
            if self.position >= len(self.tokens):
                raise self.error("a brace is not closed")
            depth += {"{": 1, "}": -1}.get(self.tokens[self.position], 0)
            self.position += 1
        return "".join(self.tokens[start : self.position - 1])

    def atom(self) -> tuple[str, bool]:
        """An element, and whether its scripts belong below and above it."""
        token = self.peek()
        if token == "{":
            return self.group(), False
        self.take()
        if token.startswith("\\"):
            return self.command(token)
        if token[0].isdigit():
            return f"<mn>{token}</mn>", False
        if token.isalpha():
            return f"<mi>{token}</mi>", False
        symbol = {"-": "−", "*": "∗"}.get(token, html.escape(token))
        stretch = ' stretchy="false"' if token in "()[]|" else ""
        return f"<mo{stretch}>{symbol}</mo>", False

    def command(self, token: str) -> tuple[str, bool]:
        name = token[1:]
        if name in symbols.IDENTIFIERS:
            return f"<mi>{symbols.IDENTIFIERS[name]}</mi>", False
        if name in symbols.LARGE:
            return f"<mo>{symbols.LARGE[name]}</mo>", name != "int"
        if token in symbols.DELIMITERS:
            form = (
                ' form="prefix"' if token in symbols.OPENING else ' form="postfix"' if token.startswith("\\r") else ""
            )
            return f'<mo stretchy="false"{form}>{symbols.DELIMITERS[token]}</mo>', False
        if name in symbols.OPERATORS:
            return f"<mo>{html.escape(symbols.OPERATORS[name])}</mo>", False
        if name in symbols.FUNCTIONS:
            return f"<mi>{name}</mi><mo>\u2061</mo>" if self.peek() not in ("_", "^") else f"<mi>{name}</mi>", False
        if name in symbols.LIMITED:
            return f"<mi>{symbols.LIMITED[name]}</mi>", True
        if name in symbols.SPACES:
            return f'<mspace width="{symbols.SPACES[name]}"/>', False
        if name == "operatorname*":
            return self.styled("operatorname"), True
        if name in symbols.STYLES:
            return self.styled(name), False
        if name in symbols.ACCENTS:
            return f'<mover accent="true">{self.argument()}<mo>{symbols.ACCENTS[name]}</mo></mover>', False
        if name in symbols.SIZES:
            size = f"{symbols.SIZES[name]}em"
            return f'<mo stretchy="true" minsize="{size}" maxsize="{size}">{self.delimiter()}</mo>', False
        structure: dict[str, Callable[[], tuple[str, bool]]] = {
            "begin": self.table,
            "binom": self.binomial,
            "left": self.fenced,
            "overset": self.overset,
            "sqrt": self.root,
            "underbrace": self.underbrace,
            "underset": self.underset,
        } | dict.fromkeys(("frac", "tfrac", "dfrac"), self.fraction)
        if name in structure:
            return structure[name]()
        raise self.error(f"the command {token} is not known (see tools/docs/site_build/tex.py)")

    def delimiter(self) -> str:
        token = self.take()
        if token not in symbols.DELIMITERS:
            raise self.error(f"{token!r} is no delimiter")
        return html.escape(symbols.DELIMITERS[token])

    def fraction(self) -> tuple[str, bool]:
        return f"<mfrac>{self.argument()}{self.argument()}</mfrac>", False

    def binomial(self) -> tuple[str, bool]:
        body = f'<mfrac linethickness="0">{self.argument()}{self.argument()}</mfrac>'
        return f"<mrow><mo>(</mo>{body}<mo>)</mo></mrow>", False

    def root(self) -> tuple[str, bool]:
        if self.peek() != "[":
            return f"<msqrt>{self.argument()}</msqrt>", False
        self.take()
        degree = self.row(("]",))
        self.take()
        return f"<mroot>{self.argument()}{degree}</mroot>", False

    def fenced(self) -> tuple[str, bool]:
        opening = self.delimiter()
        body = self.row(())
        if self.take() != "\\right":
            raise self.error("\\left has no \\right")
        return f'<mrow><mo form="prefix">{opening}</mo>{body}<mo form="postfix">{self.delimiter()}</mo></mrow>', False

    def underset(self) -> tuple[str, bool]:
        below = self.argument()
        return f"<munder>{self.argument()}{below}</munder>", False

    def overset(self) -> tuple[str, bool]:
        above = self.argument()
        return f"<mover>{self.argument()}{above}</mover>", False

    def underbrace(self) -> tuple[str, bool]:
        return f"<munder>{self.argument()}<mo>⏟</mo></munder>", True

    def styled(self, name: str) -> str:
        text = self.raw().strip() if name != "text" else self.raw()
        if name == "text":
            return f"<mtext>{html.escape(text)}</mtext>"
        alphabet = symbols.STYLES[name]
        if not alphabet:
            text = re.sub(r"\\[,:; ]", "\u2009", text)  # a space inside a name: arg max
            return f'<mi mathvariant="normal">{html.escape(text)}</mi>'
        if text.startswith("\\"):
            return f'<mrow style="font-weight: bold">{_Parser(text, False).formula()}</mrow>'
        return f"<mi>{''.join(_letter(character, alphabet) for character in text)}</mi>"

    def table(self) -> tuple[str, bool]:
        name = self.raw().removesuffix("*")
        if name not in symbols.TABLES:
            raise self.error(f"the environment {name!r} is not known")
        opening, closing = symbols.TABLES[name]
        rows: list[str] = []
        cells: list[str] = []
        while True:
            cells.append(f"<mtd>{self.row(())}</mtd>")
            separator = self.take()
            if separator == "&":
                continue
            rows.append(f"<mtr>{''.join(cells)}</mtr>")
            cells = []
            if separator == "\\end":
                self.raw()
                break
            if separator != "\\\\":
                raise self.error(f"{separator!r} stands in a table")
        left = f'<mo form="prefix">{opening}</mo>' if opening else ""
        right = f'<mo form="postfix">{closing}</mo>' if closing else ""
        return f'<mrow>{left}<mtable class="{name}">{"".join(rows)}</mtable>{right}</mrow>', False


def _letter(character: str, alphabet: str) -> str:
    """The letter in another alphabet of Unicode; itself where that has none."""
    if character in symbols.IRREGULAR.get(alphabet, {}):
        return symbols.IRREGULAR[alphabet][character]
    capital, small, digit = symbols.ALPHABETS[alphabet]
    for first, base in (("A", capital), ("a", small), ("0", digit)):
        span = 10 if first == "0" else 26
        if base and 0 <= ord(character) - ord(first) < span:
            return chr(base + ord(character) - ord(first))
    return html.escape(character)
