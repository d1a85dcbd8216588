"""TeX formulas to MathML, which browsers set by themselves: no script, no font and no image, and it follows the theme.

Covers the mathematics that docstrings use. A command that is not known raises `TexError`, which the build turns into a
warning, and so into a failure: a formula that does not come out is noticed by whoever writes it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

__all__ = ["TexError", "to_mathml"]

_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)

_IDENTIFIERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "vartheta": "ϑ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π",
    "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "ϕ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "upsilon": "υ",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ",
    "Omega": "Ω", "ell": "ℓ", "infty": "∞", "partial": "∂", "nabla": "∇", "emptyset": "∅", "top": "⊤", "bot": "⊥",
    "Re": "ℜ", "Im": "ℑ", "hbar": "ℏ", "dots": "…", "ldots": "…", "cdots": "⋯", "vdots": "⋮", "ddots": "⋱", "star": "⋆",
    "prime": "′", "dagger": "†",
}  # fmt: skip
_OPERATORS = {
    "cdot": "⋅", "times": "×", "div": "÷", "pm": "±", "mp": "∓", "circ": "∘", "odot": "⊙", "otimes": "⊗", "oplus": "⊕",
    "ast": "∗", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "sim": "∼",
    "equiv": "≡", "propto": "∝", "ll": "≪", "gg": "≫", "in": "∈", "notin": "∉", "ni": "∋", "subset": "⊂",
    "subseteq": "⊆", "cup": "∪", "cap": "∩", "setminus": "∖", "mid": "∣", "parallel": "∥", "perp": "⟂", "forall": "∀",
    "exists": "∃", "neg": "¬", "land": "∧", "lor": "∨", "wedge": "∧", "vee": "∨", "to": "→", "rightarrow": "→",
    "leftarrow": "←", "gets": "←", "mapsto": "↦", "Rightarrow": "⇒", "Leftarrow": "⇐", "leftrightarrow": "↔", "iff": "⇔",
    "colon": ":", "triangleq": "≜", "backslash": "∖", "%": "%", "#": "#", "_": "_", "&": "&", "$": "$",
}  # fmt: skip
_LARGE = {"sum": "∑", "prod": "∏", "int": "∫", "bigcup": "⋃", "bigcap": "⋂", "bigoplus": "⨁", "coprod": "∐"}
_DELIMITERS = {
    "(": "(", ")": ")", "[": "[", "]": "]", "|": "|", "/": "/", ".": "", "\\{": "{", "\\}": "}", "\\|": "‖", "\\Vert": "‖",
    "\\lVert": "‖", "\\rVert": "‖", "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\langle": "⟨", "\\rangle": "⟩",
    "\\lfloor": "⌊", "\\rfloor": "⌋", "\\lceil": "⌈", "\\rceil": "⌉", "\\lbrace": "{", "\\rbrace": "}", "<": "⟨", ">": "⟩",
}  # fmt: skip
_OPENING = {"\\lVert", "\\lvert", "\\langle", "\\lfloor", "\\lceil", "\\{", "\\lbrace"}
_FUNCTIONS = {
    "log", "ln", "exp", "sin", "cos", "tan", "tanh", "cosh", "sinh", "arctan", "arccos", "det", "dim", "ker", "deg", "rank", "arg",
}  # fmt: skip
_LIMITED = {
    "max": "max",
    "min": "min",
    "sup": "sup",
    "inf": "inf",
    "lim": "lim",
    "argmax": "arg max",
    "argmin": "arg min",
    "Pr": "Pr",
}
_ACCENTS = {
    "hat": "^",
    "widehat": "^",
    "bar": "¯",
    "overline": "¯",
    "tilde": "~",
    "widetilde": "~",
    "vec": "→",
    "dot": "˙",
    "ddot": "¨",
}
_SPACES = {",": "0.17em", ":": "0.22em", ";": "0.28em", "!": "-0.17em", " ": "0.33em", "quad": "1em", "qquad": "2em"}
_STYLES = {"mathrm": "", "operatorname": "", "text": "", "textrm": "", "mathbf": "bold", "boldsymbol": "bold", "mathbb": "double", "mathcal": "script"}  # fmt: skip
_SIZES = {
    "big": 1.2,
    "bigl": 1.2,
    "bigr": 1.2,
    "Big": 1.6,
    "Bigl": 1.6,
    "Bigr": 1.6,
    "bigg": 2.1,
    "biggl": 2.1,
    "biggr": 2.1,
}
_TABLES = {
    "cases": ("{", ""),
    "aligned": ("", ""),
    "align": ("", ""),
    "matrix": ("", ""),
    "pmatrix": ("(", ")"),
    "bmatrix": ("[", "]"),
}

# First capital, first small letter and first digit of an alphabet of Unicode; 0 where it has none.
_ALPHABETS = {
    "bold": (0x1D400, 0x1D41A, 0x1D7CE),
    "double": (0x1D538, 0x1D552, 0x1D7D8),
    "script": (0x1D49C, 0x1D4B6, 0),
}
_IRREGULAR = {
    "double": dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True)),
    "script": dict(zip("BEFHILMRego", "ℬℰℱℋℐℒℳℛℯℊℴ", strict=True)),
}


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
        if name in _IDENTIFIERS:
            return f"<mi>{_IDENTIFIERS[name]}</mi>", False
        if name in _LARGE:
            return f"<mo>{_LARGE[name]}</mo>", name != "int"
        if token in _DELIMITERS:
            form = ' form="prefix"' if token in _OPENING else ' form="postfix"' if token.startswith("\\r") else ""
            return f'<mo stretchy="false"{form}>{_DELIMITERS[token]}</mo>', False
        if name in _OPERATORS:
            return f"<mo>{html.escape(_OPERATORS[name])}</mo>", False
        if name in _FUNCTIONS:
            return f"<mi>{name}</mi><mo>\u2061</mo>" if self.peek() not in ("_", "^") else f"<mi>{name}</mi>", False
        if name in _LIMITED:
            return f"<mi>{_LIMITED[name]}</mi>", True
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}"/>', False
        if name in _STYLES:
            return self.styled(name), False
        if name in _ACCENTS:
            return f'<mover accent="true">{self.argument()}<mo>{_ACCENTS[name]}</mo></mover>', False
        if name in _SIZES:
            size = f"{_SIZES[name]}em"
            return f'<mo stretchy="true" minsize="{size}" maxsize="{size}">{self.delimiter()}</mo>', False
        structure: dict[str, Callable[[], tuple[str, bool]]] = {
            "frac": self.fraction, "tfrac": self.fraction, "dfrac": self.fraction, "sqrt": self.root, "left": self.fenced,
            "begin": self.table, "underset": self.underset, "overset": self.overset, "underbrace": self.underbrace,
            "binom": self.binomial,
        }  # fmt: skip
        if name in structure:
            return structure[name]()
        raise self.error(f"the command {token} is not known (see tools/docs/site_build/tex.py)")

    def delimiter(self) -> str:
        token = self.take()
        if token not in _DELIMITERS:
            raise self.error(f"{token!r} is no delimiter")
        return html.escape(_DELIMITERS[token])

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
        alphabet = _STYLES[name]
        if not alphabet:
            return f'<mi mathvariant="normal">{html.escape(text)}</mi>'
        if text.startswith("\\"):
            return f'<mrow style="font-weight: bold">{_Parser(text, False).formula()}</mrow>'
        return f"<mi>{''.join(_letter(character, alphabet) for character in text)}</mi>"

    def table(self) -> tuple[str, bool]:
        name = self.raw().removesuffix("*")
        if name not in _TABLES:
            raise self.error(f"the environment {name!r} is not known")
        opening, closing = _TABLES[name]
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
    if character in _IRREGULAR.get(alphabet, {}):
        return _IRREGULAR[alphabet][character]
    capital, small, digit = _ALPHABETS[alphabet]
    for first, base in (("A", capital), ("a", small), ("0", digit)):
        span = 10 if first == "0" else 26
        if base and 0 <= ord(character) - ord(first) < span:
            return chr(base + ord(character) - ord(first))
    return html.escape(character)
