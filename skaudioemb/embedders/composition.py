"""Named members of a composition of embedders, as scikit-learn addresses them."""

from sklearn.base import _clone_parametrized, clone
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _BaseComposition

from skaudioemb.embedders.base import ClipsTransformer, Embedder


class Composition(ClipsTransformer, _BaseComposition):
    """Base of transformers with a parameter ``embedders``: (name, member) pairs.

    Members are parameters by name, can be "dropped", and share ``memory``.
    """

    def get_params(self, deep=True):
        """Return the parameters, those of the members among them.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include members as ``name`` and their parameters as
            ``name__parameter``.

        Returns
        -------
        params : dict
        """
        return self._get_params("embedders", deep=deep)

    def set_params(self, **params):
        """Set parameters, members (``name=...``) or theirs (``name__parameter``).

        Returns
        -------
        self : object
        """
        # A member that a grid drops is kept in mind: whatever is stored now should
        # serve the candidates that have it as well.
        members = self.get_params(deep=True)
        dropped = {
            name: members[name]
            for name, value in params.items()
            if isinstance(value, str)
            and isinstance(members.get(name), ClipsTransformer)
        }
        self._dropped = {**getattr(self, "_dropped", {}), **dropped}
        return self._set_params("embedders", **params)

    def __sklearn_clone__(self):
        twin = _clone_parametrized(self)
        if hasattr(self, "_dropped"):
            twin._dropped = self._dropped
        return twin

    @property
    def on_error(self):
        """What a bad clip does: become NaN if every member lets it, else raise."""
        members = self.get_params(deep=True).values()
        kept = [m for m in members if isinstance(m, Embedder | Composition)]
        return "nan" if kept and all(m.on_error == "nan" for m in kept) else "raise"

    @property
    def named_embedders(self):
        return Bunch(**dict(self.embedders))

    def __getitem__(self, name):
        """Return the member called ``name``."""
        return self.named_embedders[name]

    def _validate_members(self):
        """Check the members and return the names of those in use."""
        for pair in self.embedders:
            if not (isinstance(pair, list | tuple) and len(pair) == 2):
                raise TypeError(
                    f"{pair!r} among the embedders is no (name, embedder) pair. Name "
                    "the members, or use make_fusion, which does."
                )
        names = [name for name, _ in self.embedders]
        self._validate_names(names)
        for name, member in self.embedders:
            if member != "drop" and not isinstance(member, Embedder | Composition):
                raise TypeError(
                    f"Member {name!r} is {member!r}. Members are embedders of "
                    "skaudioemb, fusions, or 'drop'."
                )
        kept = [name for name, member in self.embedders if member != "drop"]
        if not kept:
            raise ValueError("Every member is dropped. Keep at least one.")
        return kept

    def _members(self):
        """Return the members in use by name, fitted ones if there are."""
        return dict(getattr(self, "embedders_", None) or self._prepared())

    def _prepared(self):
        """Return clones of the members that are not dropped, sharing the memory."""
        members = [
            (name, clone(member)) for name, member in self.embedders if member != "drop"
        ]
        for _, member in members:
            if member.memory is None:
                member.set_params(memory=self.memory)
        return members
