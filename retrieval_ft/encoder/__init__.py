"""A model as a function from texts to vectors: prompts, pooling, precision, batching, the cache."""
