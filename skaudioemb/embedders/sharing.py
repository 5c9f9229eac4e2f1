"""How embedders pass on the weights that they learned."""

import tempfile


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
