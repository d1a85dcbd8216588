"""Tables of learned vectors in less memory: drop-in replacements for `nn.Embedding`."""
