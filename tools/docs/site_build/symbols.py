"""The commands of TeX that stand for a symbol."""

from __future__ import annotations

__all__ = [
    "ACCENTS",
    "ALPHABETS",
    "DELIMITERS",
    "FUNCTIONS",
    "IDENTIFIERS",
    "IRREGULAR",
    "LARGE",
    "LIMITED",
    "OPENING",
    "OPERATORS",
    "SIZES",
    "SPACES",
    "STYLES",
    "TABLES",
]


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IDENTIFIERS = _pairs("""
    alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ
    nu ν xi ξ pi π rho ρ sigma σ varsigma ς tau τ phi ϕ varphi φ chi χ psi ψ omega ω upsilon υ Gamma Γ Delta Δ Theta Θ
    Lambda Λ Xi Ξ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω ell ℓ infty ∞ partial ∂ nabla ∇ emptyset ∅ top ⊤ bot ⊥ Re ℜ Im ℑ
    hbar ℏ dots … ldots … cdots ⋯ vdots ⋮ ddots ⋱ star ⋆ prime ′ dagger †
""")
OPERATORS = _pairs("""
    cdot ⋅ times × div ÷ pm ± mp ∓ circ ∘ odot ⊙ otimes ⊗ oplus ⊕ ast ∗ le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈
    sim ∼ equiv ≡ propto ∝ ll ≪ gg ≫ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ cup ∪ cap ∩ setminus ∖ mid ∣ parallel ∥
    perp ⟂ forall ∀ exists ∃ neg ¬ land ∧ lor ∨ wedge ∧ vee ∨ to → rightarrow → leftarrow ← gets ← mapsto ↦ Rightarrow ⇒
    Leftarrow ⇐ leftrightarrow ↔ iff ⇔ colon : triangleq ≜ backslash ∖ % % # # _ _ & & $ $
""")
LARGE = _pairs("sum ∑ prod ∏ int ∫ bigcup ⋃ bigcap ⋂ bigoplus ⨁ coprod ∐")
ACCENTS = _pairs("hat ^ widehat ^ bar ¯ overline ¯ tilde ~ widetilde ~ vec → dot ˙ ddot ¨")

#: After \left, \right and \big; with and without a backslash. A dot is a delimiter that is not there.
DELIMITERS = {".": ""} | _pairs(r"""
    ( ( ) ) [ [ ] ] | | / / < ⟨ > ⟩ \{ { \} } \| ‖ \Vert ‖ \lVert ‖ \rVert ‖ \vert | \lvert | \rvert | \langle ⟨
    \rangle ⟩ \lfloor ⌊ \rfloor ⌋ \lceil ⌈ \rceil ⌉ \lbrace { \rbrace }
""")
OPENING = _words(r"\lVert \lvert \langle \lfloor \lceil \{ \lbrace")

FUNCTIONS = _words("log ln exp sin cos tan tanh cosh sinh arctan arccos det dim ker deg rank arg")
LIMITED = {name: name for name in _words("max min sup inf lim Pr")} | {"argmax": "arg max", "argmin": "arg min"}
SPACES = {",": "0.17em", ":": "0.22em", ";": "0.28em", "!": "-0.17em", " ": "0.33em", "quad": "1em", "qquad": "2em"}
SIZES = {f"{size}{side}": em for size, em in (("big", 1.2), ("Big", 1.6), ("bigg", 2.1)) for side in ("", "l", "r")}
#: What stands before and after a table.
TABLES = dict.fromkeys(("aligned", "align", "matrix"), ("", "")) | {
    "bmatrix": ("[", "]"),
    "cases": ("{", ""),
    "pmatrix": ("(", ")"),
}

#: Command to alphabet; upright text where there is none.
STYLES = dict.fromkeys(("mathrm", "operatorname", "text", "textrm"), "") | _pairs(
    "mathbf bold boldsymbol bold mathbb double mathcal script"
)
#: First capital, first small letter and first digit of an alphabet of Unicode; 0 where it has none.
ALPHABETS = {
    "bold": (0x1D400, 0x1D41A, 0x1D7CE),
    "double": (0x1D538, 0x1D552, 0x1D7D8),
    "script": (0x1D49C, 0x1D4B6, 0),
}
#: Letters that Unicode had already, elsewhere.
IRREGULAR = {
    "double": _pairs("C ℂ H ℍ N ℕ P ℙ Q ℚ R ℝ Z ℤ"),
    "script": _pairs("B ℬ E ℰ F ℱ H ℋ I ℐ L ℒ M ℳ R ℛ e ℯ g ℊ o ℴ"),
}
