import pytest

from retrieval_ft.config import DataConfig
from retrieval_ft.dataset.readers import read_documents
from retrieval_ft.errors import RetrievalFTError


@pytest.fixture
def read():
    """Read a path to the end: the documents by id, and the account."""

    def work(path, **config):
        reading = read_documents(DataConfig(path=path, **config))
        documents = list(reading.documents)
        assert len({document.id for document in documents}) == len(documents)
        return {document.id: document for document in documents}, reading.account

    return work


@pytest.fixture
def told(read):
    """What a user reads where a path cannot be read, and the exit code of it."""

    def work(path, **config):
        with pytest.raises(RetrievalFTError) as caught:
            read(path, **config)
        return str(caught.value), caught.value.exit_code

    return work


@pytest.fixture
def skipped():
    """What an account left out: path -> reason."""
    return lambda account: {item.path: item.reason for item in account.skipped}
