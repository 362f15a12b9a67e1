"""What is refused before any work."""


def check(q, new_keys, new_values, keys, values, lengths, layer) -> None:
    """Whether queries, new tokens, cache and lengths go with each other."""
    m, n, h, width = q.shape
    axes = "m g max_len k" if layer is None else "l m g max_len k"
    fits = keys.shape == values.shape and len(keys.shape) == len(axes.split())
    rows, g, _, cached_width = keys.shape[-4:] if fits else (0, 1, 0, 0)
    if cached_width != width or rows != m or h % g:
        raise ValueError(
            f"decode_attention: q is {q.shape}, keys {keys.shape}, values {values.shape}; need "
            f"[m n h k] and twice [{axes}], with h a multiple of g."
        )
    if new_keys.shape != (m, n, g, width) or new_values.shape != new_keys.shape:
        raise ValueError(
            f"decode_attention: new keys are {new_keys.shape} and new values {new_values.shape}; "
            f"with this q and cache they must be {(m, n, g, width)}."
        )
    if lengths.shape != (m,):
        raise ValueError(f"decode_attention: {m} rows, but lengths is {lengths.shape}.")
