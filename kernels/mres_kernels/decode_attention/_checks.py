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
    if isinstance(layer, int) and not 0 <= layer < keys.shape[0]:
        raise ValueError(f"decode_attention: layer={layer} of a cache of {keys.shape[0]} layers.")


def check_extension(cache, new, lengths) -> None:
    """Whether a cache, what is written into it and where go with each other."""
    if len(cache.shape) not in (4, 5):
        raise ValueError(f"extend_cache: the cache is {cache.shape}, not [m g max_len k] or more.")
    needed = (*cache.shape[:-2], cache.shape[-1])
    if new.shape != needed or new.dtype != cache.dtype:
        raise ValueError(
            f"extend_cache: new is {new.dtype.name} {new.shape}; with a cache of "
            f"{cache.dtype.name} {cache.shape} it must be {cache.dtype.name} {needed}."
        )
    if lengths.shape != (cache.shape[-4],):
        raise ValueError(f"extend_cache: {cache.shape[-4]} rows, but lengths is {lengths.shape}.")
