"""The second stage: clusters of what a trained encoder gives, as further targets."""

import copy

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn


class ClusterTargets(nn.Module):
    """The cluster of each frame of a frozen teacher, which sees all frames.

    Parameters
    ----------
    teacher : FrameEncoder
        Copied. It stays in evaluation mode.
    stream : {"normed", "combined"}
        Which frames are clustered: those of the last layer's normalised stream, as
        in the first release of the published code; or the sum of both streams, which
        is the embedding.
    n_centres : int, default=0
        Of what is to be loaded; 0 before :meth:`learn`.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), section 2.3; Hsu et al., "HuBERT" (2021),
    section II-A.
    """

    def __init__(self, teacher, stream, n_centres=0):
        super().__init__()
        self.teacher = copy.deepcopy(teacher).requires_grad_(False).eval()
        self.stream = stream
        width = teacher.project.out_features
        self.register_buffer("centres", torch.zeros(n_centres, width))

    def train(self, mode=True):
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def frames(self, features, padding=None):
        """Return the teacher's frames.

        Parameters
        ----------
        features : tensor of shape (n_clips, n_frames, n_inputs)
        padding : tensor of shape (n_clips, n_frames), bool, or None

        Returns
        -------
        frames : tensor of shape (n_clips, n_frames, n_features)
        """
        if self.stream == "combined":
            return self.teacher(features, padding).float()
        embedded = self.teacher.embed(features)
        for normed, _ in self.teacher.stack.streams(embedded, padding):
            last = normed
        return last.float()

    @torch.no_grad()
    def forward(self, features, padding=None):
        """Return the nearest centre of each frame, (n_clips, n_frames), int64."""
        frames = self.frames(features, padding)
        with torch.autocast(frames.device.type, enabled=False):
            # The frame's own square is the same for all centres.
            near = frames @ self.centres.T - self.centres.square().sum(1) / 2
        return near.argmax(-1)

    def learn(self, batches, hear, n_clusters, n_frames, seed):
        """Cluster frames of random crops; what is held does not grow with these.

        Parameters
        ----------
        batches : CropBatches
        hear : Hearing
        n_clusters : int
            Centres, or as many as there are different frames.
        n_frames : int
            Frames to draw at most, alike from all crops of one epoch.
        seed : int

        Returns
        -------
        self : ClusterTargets

        Raises
        ------
        ValueError
            If no clip that was looked at is good.
        """
        rng = np.random.default_rng([seed, 1])
        n_crops = min(n_frames, len(batches.items))
        drawn = []
        for batch in batches.epoch(0, limit=n_crops):
            heard = hear(batch, with_material=False)
            padding = heard.padding()
            for frames, count in zip(
                self.frames(heard.features, padding), heard.n_whole, strict=True
            ):
                chosen = rng.permutation(int(count))[: -(-n_frames // n_crops)]
                drawn.append(frames[torch.from_numpy(chosen).to(frames.device)].cpu())
        if not drawn:
            raise batches.too_few()
        frames = torch.cat(drawn).numpy()
        frames = frames[rng.permutation(len(frames))[:n_frames]]
        self.centres = fit_centres(frames, n_clusters, seed).to(self.centres)
        return self


def fit_centres(frames, n_clusters, seed):
    """Return centres by k-means.

    Parameters
    ----------
    frames : ndarray of shape (n_frames, n_features), float32
    n_clusters : int
        There are no more centres than different frames.
    seed : int

    Returns
    -------
    centres : tensor of shape (at most n_clusters, n_features)

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.pretraining.self_training import fit_centres
    >>> frames = np.array([[0.0], [0.2], [4.0]], np.float32)
    >>> fit_centres(frames, 2, seed=0).sort(0).values
    tensor([[0.1000], [4.0000]])
    """
    n_different = len(np.unique(frames, axis=0))
    means = KMeans(min(n_clusters, n_different), random_state=seed).fit(frames)
    return torch.from_numpy(means.cluster_centers_.astype(np.float32))
