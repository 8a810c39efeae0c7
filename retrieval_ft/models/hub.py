"""The model hub and its cache on this disk: a snapshot, or the reason why there is none.

The hub is an origin among others, so that failing to reach it is an answer, not an error; and it
is a quick one: short timeouts, and no file but weights (safetensors), JSON and text.
"""

from __future__ import annotations

from pathlib import Path

PATTERNS = ("*.safetensors", "*.json", "*.txt")
_IGNORED = ("onnx/*", "openvino/*")
_TIMEOUT_S = 5.0


def snapshot(
    name: str,
    *,
    revision: str | None = None,
    patterns: tuple[str, ...] = PATTERNS,
    local_only: bool,
) -> tuple[Path | None, str]:
    """Return (folder, "") of a model's snapshot, or (None, the reason) where it cannot be had."""
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import (
        FileMetadataError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        if not local_only:  # one quick question first: a download retries for half a minute
            model_info(name, revision=revision, timeout=_TIMEOUT_S)
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(_IGNORED),
            local_files_only=local_only,
            etag_timeout=_TIMEOUT_S,
        )
    except HFValidationError:
        return None, "not a name that the hub can have"
    except RepositoryNotFoundError:
        return None, "the hub has no such model, or it is private"
    except RevisionNotFoundError:
        return None, f"the hub has no revision {revision} of it"
    except OfflineModeIsEnabled:
        return None, "HF_HUB_OFFLINE is set"
    except LocalEntryNotFoundError as error:
        if local_only:
            return None, "not in the hub's cache"
        cause = error.__cause__ or error
        return None, f"the hub could not be reached: {type(cause).__name__}"
    except (HTTPError, FileMetadataError) as error:
        return None, f"the hub could not be reached: {type(error).__name__}"
    return Path(folder), ""
