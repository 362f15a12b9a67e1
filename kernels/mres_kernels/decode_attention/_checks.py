"""What is refused before any work."""


def check(q, new_keys, new_values, keys, values, lengths, layer) -> None:
    """Whether queries, new tokens, cache and lengths go with each other."""
    m, n, h, width = q.shape
    axes = "m g max_len k" if layer is None else "l m g max_len k"
    alike = keys.shape == values.shape and len(keys.shape) == len(axes.split())
    if not alike or keys.shape[-4] != m or keys.shape[-1] != width or h % keys.shape[-3]:
        raise ValueError(
            f"decode_attention: q is {q.shape}, keys {keys.shape}, values {values.shape}; need "
            f"[m n h k] and twice [{axes}], with h a multiple of g."
        )
    g = keys.shape[-3]
    if new_keys.shape != (m, n, g, width) or new_values.shape != new_keys.shape:
        raise ValueError(
            f"decode_attention: new keys are {new_keys.shape} and new values {new_values.shape}; "
            f"with this q and cache they must be {(m, n, g, width)}."
        )
    if lengths.shape != (m,):
        raise ValueError(f"decode_attention: {m} rows, but lengths is {lengths.shape}.")
