"""How embedders keep the weights that they learned, and pass them on."""

import tempfile
from contextlib import contextmanager

from sklearn.utils import check_random_state


@contextmanager
def unchanged_on_failure(estimator):
    """Give an estimator back all its attributes if what is done to it fails.

    Examples
    --------
    >>> from skaudioemb import LogMel
    >>> from skaudioemb.embedders.sharing import unchanged_on_failure
    >>> embedder = LogMel()
    >>> try:
    ...     with unchanged_on_failure(embedder):
    ...         embedder.learned_ = 1
    ...         raise KeyError
    ... except KeyError:
    ...     print(hasattr(embedder, "learned_"))
    False
    """
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def seed_of(random_state, folder=None):
    """Return the seed of a training.

    Parameters
    ----------
    random_state : int, RandomState or None
    folder : str, path-like or None, default=None
        Of checkpoints. With ``random_state=None`` the seed of the one in it is taken,
        so that a training that was killed goes on.

    Returns
    -------
    seed : int
    """
    if random_state is None and folder is not None:
        from skaudioemb.pretraining.checkpoints import saved_seed

        saved = saved_seed(folder)
        if saved is not None:
            return saved
    return int(check_random_state(random_state).randint(2**31))


def check_unchanged(before, now, remedy):
    """Raise if parameters differ from those that something was learned with.

    Parameters
    ----------
    before, now : dict
        Values by the names of parameters. Those of only one of them do not count.
    remedy : str
        A sentence.

    Raises
    ------
    ValueError
        If they do; the message names them.

    Examples
    --------
    >>> from skaudioemb.embedders.sharing import check_unchanged
    >>> check_unchanged({"size": 3}, {"size": 4}, "Set them back.")
    Traceback (most recent call last):
    ...
    ValueError: What was learned has size=3, but size=4. Set them back.
    """
    changed = [name for name in now if name in before and before[name] != now[name]]
    if changed:
        there = ", ".join(f"{name}={before[name]!r}" for name in changed)
        here = ", ".join(f"{name}={now[name]!r}" for name in changed)
        raise ValueError(f"What was learned has {there}, but {here}. {remedy}")


class SharedWeights:
    """What an embedder with ``save_weights(path)`` can do besides."""

    def push_to_hub(self, repo_id, *, private=False, token=None):
        """Save the weights to a repository on the Hugging Face hub.

        The embedder that is given ``repo_id`` for its weights reads them again. Mind
        the licence of weights that are not your own.

        Parameters
        ----------
        repo_id : str
            "owner/name"; it is made unless it exists.
        private : bool, default=False
            Whether a new repository is private.
        token : str or None, default=None
            An access token; None takes that of ``huggingface_hub``'s login.

        Returns
        -------
        url : str
            Where the commit can be seen.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_weights(folder)
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
