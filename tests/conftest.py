import os

import pytest
import tiny

# Before torch is loaded: its threads must not spin where the cores are shared with another job.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The tiny model of tests/tiny.py; shared, so read only."""
    return tiny.tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """The tiny dataset of tests/tiny.py, in BEIR layout; shared, so read only."""
    return tiny.tiny_dataset(tmp_path_factory.mktemp("tiny-data") / "tiny")


@pytest.fixture
def encoder(model_folder):
    """The tiny model in float32 on the CPU; a fresh one, so its weights may be changed."""
    from retrieval_ft.encoder.encoder import load_encoder

    return load_encoder(model_folder, device="cpu", precision="fp32")


@pytest.fixture
def one_thread():
    """Torch on one thread: what is done side by side on a CPU then goes one after another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_key(monkeypatch):
    """No variable of the one who runs the tests points at a provider."""
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
