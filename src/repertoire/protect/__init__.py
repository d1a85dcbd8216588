"""Images changed so little that nobody sees it, and so that networks learn less from them.

An operator takes images with labels as they are stored, integers from 0 to 255, and gives images of the same kind: what
is promised of the changes (how large they are, and how many) is true of the files. What they do to a network that
learns from them is measured by the claims of their papers, and undone by some of what is known against them, which the
operator's documentation names.
"""

from repertoire.protect._unlearnable import Protected, sparse_unlearnable

__all__ = ["Protected", "sparse_unlearnable"]
