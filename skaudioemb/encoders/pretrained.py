"""Models of transformers with their weights, all of them, and no noise."""

import os
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from skaudioemb.devices import is_out_of_memory
from skaudioemb.encoders import checkpoint as files

# Only training uses it, and not every checkpoint has it.
_UNUSED_WEIGHTS = ("masked_spec_embed",)


def load_pretrained(folder, model_class, config, *, unused=(), **options):
    """Return a model of transformers in eval mode, float32.

    Parameters
    ----------
    folder : Path
        See :func:`skaudioemb.encoders.checkpoint.folder_of`.
    model_class : type
        A class of transformers with ``from_pretrained``.
    config : PreTrainedConfig
    unused : tuple of str
        Parts of the names of tensors that may be missing, for embeddings never use
        them.
    **options : dict
        Further arguments of ``from_pretrained``.

    Returns
    -------
    model : PreTrainedModel

    Raises
    ------
    OSError
        If there are no weights.
    ValueError
        If some that are needed are missing, or do not fit.
    """
    files.weight_files(folder)
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                os.fspath(folder),
                config=config,
                # The default is the dtype of the file, which may be half precision.
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"The weights in {str(folder)!r} cannot be read into the model that "
            f"{files.CONFIG_FILE} describes: the file is damaged, or shapes differ "
            f"({type(error).__name__}). Save or download the checkpoint again."
        ) from error
    may_lack = (*_UNUSED_WEIGHTS, *unused)
    missing = sorted(
        key for key in report["missing_keys"] if not any(p in key for p in may_lack)
    )
    if missing:
        raise ValueError(
            f"The weights in {str(folder)!r} lack {len(missing)} of the encoder's "
            f"tensors ({', '.join(missing[:3])}, ...). They are not those of the "
            f"{config.model_type} model that {files.CONFIG_FILE} describes; save or "
            "download the checkpoint again."
        )
    return model.eval()


@contextmanager
def quiet_transformers():
    """Silence progress bars and the report on the heads that are left out."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
