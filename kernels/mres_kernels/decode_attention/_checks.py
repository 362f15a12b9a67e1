"""What is refused before any work."""


def check(q, new_keys, new_values, keys, values, lengths) -> None:
    """Whether queries, new tokens, cache and lengths go with each other."""
    m, n, h, width = q.shape
    rows, _, g, _ = keys.shape
    if keys.shape != values.shape or keys.shape[3] != width or rows != m or h % g:
        raise ValueError(
            f"decode_attention: q is {q.shape}, keys {keys.shape}, values {values.shape}; need "
            "[m n h k] and twice [m max_len g k], with h a multiple of g."
        )
    if new_keys.shape != (m, n, g, width) or new_values.shape != new_keys.shape:
        raise ValueError(
            f"decode_attention: new keys are {new_keys.shape} and new values {new_values.shape}; "
            f"with this q and cache they must be {(m, n, g, width)}."
        )
    if lengths.shape != (m,):
        raise ValueError(f"decode_attention: {m} rows, but lengths is {lengths.shape}.")
