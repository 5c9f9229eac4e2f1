"""BYOL for audio as a task: two networks, the loss between them, and the average."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from skaudioemb.pretraining.fused import fuse
from skaudioemb.pretraining.trainer import Task


class Head(nn.Sequential):
    """A projector or a predictor: linear, batch normalisation, ReLU, linear.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs : int

    Examples
    --------
    >>> from skaudioemb.pretraining.byol_task import Head
    >>> sum(p.numel() for p in Head(2048, 4096, 256).parameters())
    9449728
    """

    def __init__(self, n_inputs, n_hidden, n_outputs):
        super().__init__(
            nn.Linear(n_inputs, n_hidden),
            nn.BatchNorm1d(n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, n_outputs),
        )


def distance(a, b):
    """Return the squared distance of two batches of vectors scaled to length 1.

    Parameters
    ----------
    a, b : tensor of shape (n_clips, n_features)

    Returns
    -------
    distances : tensor of shape (n_clips,)
        ``2 - 2 cos(a, b)``, from 0 to 4.

    References
    ----------
    Grill et al., "Bootstrap Your Own Latent" (2020), equation 2.
    """
    return 2 - 2 * F.cosine_similarity(a.float(), b.float(), dim=-1, eps=1e-12)


def symmetric_loss(predictions, targets):
    """Return BYOL's loss of each clip: either view predicts the other.

    Parameters
    ----------
    predictions, targets : pair of tensor of shape (n_clips, n_features)
        The online network's predictions, and the target network's projections, of
        the first and the second view.

    Returns
    -------
    losses : tensor of shape (n_clips,)
        From 0 to 8.

    References
    ----------
    Niizumi et al., "BYOL for Audio" (2021), section III-A.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.pretraining.byol_task import symmetric_loss
    >>> same, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> symmetric_loss((same, other), (other, same)).item()
    0.0
    """
    first, second = predictions
    return distance(first, targets[1]) + distance(second, targets[0])


@torch.no_grad()
def average_into(target, online, tau):
    """Move the parameters of a network towards those of another; no buffers.

    Parameters
    ----------
    target, online : torch.nn.Module
        Of the same architecture.
    tau : float
        The share of its own that the target keeps.
    """
    pairs = list(target.parameters()), [p.detach() for p in online.parameters()]
    torch._foreach_lerp_(*pairs, 1 - tau)


def spread(projections):
    """Return how far unit vectors spread: the figure that shows a collapse.

    Parameters
    ----------
    projections : tensor of shape (n_clips, n_features)

    Returns
    -------
    spread : tensor of shape ()
        The mean standard deviation of the scaled vectors' components: near
        ``1 / sqrt(n_features)`` if they point anywhere, near 0 if all point the
        same way and the training has collapsed.
    """
    return F.normalize(projections.detach().float(), dim=-1).std(0).mean()


class Network(nn.Module):
    """An encoder and its projector."""

    def __init__(self, encoder, projector):
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, x):
        """Project a batch of views.

        Parameters
        ----------
        x : tensor of shape (n_clips, 1, n_mels, n_frames)

        Returns
        -------
        projections : tensor of shape (n_clips, n_outputs)
        """
        return self.projector(self.encoder(x))


class Byol(nn.Module):
    """The online and the target network of BYOL.

    Either view goes through a network as a batch of its own, so that its statistics
    for batch normalisation are its own too.

    Parameters
    ----------
    encoder : torch.nn.Module
        Copied.
    n_features, n_hidden, n_outputs : int
        Width of the embedding, the heads' hidden layer, and the projection.
    tau : float, default=0.99
        The share of its own weights that the target keeps in a step.

    References
    ----------
    Grill et al., "Bootstrap Your Own Latent" (2020), section 3.
    """

    def __init__(self, encoder, n_features, n_hidden, n_outputs, tau=0.99):
        super().__init__()
        projector = Head(n_features, n_hidden, n_outputs)
        self.online = Network(copy.deepcopy(encoder), projector)
        self.predictor = Head(n_outputs, n_hidden, n_outputs)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.tau = tau

    def forward(self, first, second):
        """Run both views through both networks.

        Parameters
        ----------
        first, second : tensor of shape (n_clips, ...)
            The views.

        Returns
        -------
        projections, predictions, targets : pair of tensor of shape \
                (n_clips, n_outputs)
            Of the first and the second view; no gradient flows through the targets.
        """
        projections = tuple(self.online(view) for view in (first, second))
        predictions = tuple(map(self.predictor, projections))
        with torch.no_grad():
            targets = tuple(self.target(view) for view in (first, second))
        return projections, predictions, targets

    def average(self):
        """Let the target follow the online network."""
        average_into(self.target, self.online, self.tau)


class ByolTask(Task):
    """BYOL on waveforms: log-mel, normalisation, views, networks, loss.

    Parameters
    ----------
    byol : Byol
    frontend : torch.nn.Module
        Maps waveforms to log-mel spectrograms; none of it is trained or saved.
    views : Views
    mean, std : float
        By which spectrograms are normalised.
    settings : BYOLSettings
    """

    name = "BYOL"

    def __init__(self, byol, frontend, views, mean, std, settings):
        super().__init__()
        self.byol, self.views = byol, views
        # In a list, so that it is no part of the state dict.
        self._frontend = [frontend]
        self.mean, self.std = mean, std
        self.settings = settings

    def forward(self, batch, generator):
        """Return the loss of a batch of crops, and the figure of a collapse."""
        device = generator.device
        waveforms = batch.waveforms.to(device, non_blocking=True)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            x = (self._frontend[0](waveforms)[:, 0] - self.mean) / self.std
            views = [view[:, None] for view in self.views(x, generator)]
        projections, predictions, targets = self.byol(*views)
        loss = symmetric_loss(predictions, targets).mean()
        figures = {"projection_std": spread(projections[0])}
        if batch.targets is None:
            return {"loss": loss, **figures}
        on = self.settings.supervised_on
        outputs = predictions if on == "prediction" else projections
        supervised = self._supervised(outputs, batch.targets.to(device))
        total = self.settings.beta * loss + self.settings.alpha * supervised
        return {"loss": total, "byol": loss, "supervised": supervised, **figures}

    def _supervised(self, outputs, targets):
        if self.settings.supervised_loss == "mse":
            losses = [F.mse_loss(output.float(), targets) for output in outputs]
        else:
            losses = [distance(output, targets).mean() for output in outputs]
        return 0.5 * sum(losses)

    def after_step(self):
        """Let the target network follow."""
        self.byol.average()


def prepare(byol, device, compile):
    """Move the networks to a device in the layout in which they run fastest there.

    Parameters
    ----------
    byol : Byol
    device : torch.device
    compile : bool
        Whether to compile the networks; on CUDA only.

    Returns
    -------
    byol : Byol
    """
    byol = byol.to(device)
    for module in byol.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        fuse(byol)
    if compile and device.type == "cuda":
        byol.online.compile()
        byol.target.compile()
    return byol
