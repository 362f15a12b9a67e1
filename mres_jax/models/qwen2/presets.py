"""What to leave of a model with a Qwen decoder for a look on a CPU."""

# Overrides of a run file: those of the run, of its decoder and of its vocabulary.
SMOKE = {
    "model.text_config.vocab_size": "512",
    "model.text_config.hidden_size": "32",
    "model.text_config.intermediate_size": "64",
    "model.text_config.num_hidden_layers": "2",
    "model.text_config.num_attention_heads": "2",
    "model.text_config.num_key_value_heads": "1",
    "model.image_token_id": "451",  # of the tokenizer that a run without `init` has
    "init": "none",
    "dtype": "float32",
    "num_workers": "0",
    "accumulation": "1",
    "schedule.epochs": "none",
    "schedule.num_steps": "2",
}
