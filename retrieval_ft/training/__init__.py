"""Contrastive fine-tuning on sentence-transformers' Trainer, and the soup of base and tuned."""
