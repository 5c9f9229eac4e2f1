"""Networks from log-mel spectrograms to frames: the encoders of BYOL-A and BYOL-S.

Each takes normalised log-mel of shape (n_clips, 1, 64, n_frames) and gives frames;
their temporal aggregation gives one vector a clip. Names and shapes of their tensors
are those of the published files. CvT is in :mod:`skaudioemb.encoders.byol_cvt`.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn

N_MELS = 64


class ByolNet(nn.Module, ABC):
    """Base of the encoders.

    Attributes
    ----------
    n_features : int
        Width of a frame and of an embedding.
    min_frames : int
        Log-mel frames that the network needs.
    frame_stride : int
        Log-mel frames from one frame's centre to the next.
    frame_offset : float
        Log-mel frames from the first one to the first frame's centre.
    aggregation : {"mean+max", "mean", "last"}
        How the paper makes an embedding of frames; "mean+max" is the sum of both.
    """

    aggregation = "mean+max"

    @abstractmethod
    def frames(self, x):
        """Return the frames before temporal aggregation.

        Parameters
        ----------
        x : Tensor of shape (n_clips, 1, 64, n_frames)
            Normalised log-mel with at least ``min_frames`` frames.

        Returns
        -------
        frames : Tensor of shape (n_clips, n_frames_out, n_features)
            ``(n_frames - min_frames) // frame_stride + 1`` of them a clip.
        """

    def forward(self, x):
        """Return the embeddings, Tensor of shape (n_clips, n_features)."""
        return aggregate(self.frames(x), self.aggregation)


def aggregate(frames, how):
    """Make one vector of the frames of each clip.

    Parameters
    ----------
    frames : Tensor of shape (n_clips, n_frames, n_features)
    how : {"mean+max", "mean", "max", "last"}

    Returns
    -------
    embeddings : Tensor of shape (n_clips, n_features)
    """
    if how == "last":
        return frames[:, -1]
    parts = {"mean": lambda: frames.mean(dim=1), "max": lambda: frames.amax(dim=1)}
    return sum(parts[part]() for part in how.split("+"))


def flatten_map(x):
    """Return a feature map as frames, feature ``mel * n_channels + channel``.

    Parameters
    ----------
    x : Tensor of shape (n_clips, n_channels, n_mels, n_frames)

    Returns
    -------
    frames : Tensor of shape (n_clips, n_frames, n_mels * n_channels)
    """
    return x.permute(0, 3, 2, 1).flatten(2)


def _mel_block(n_inputs, n_outputs=64):
    return [
        nn.Conv2d(n_inputs, n_outputs, 3, padding=1),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


class AudioNTT2020(ByolNet):
    """BYOL-A's first encoder, also that of BYOL-S: three blocks and two linear layers.

    Parameters
    ----------
    n_features : int, default=2048
        512, 1024 and 2048 are published.

    References
    ----------
    D. Niizumi et al., "BYOL for Audio: Self-Supervised Learning for General-Purpose
    Audio Representation", IJCNN 2021, section III.
    """

    min_frames = 8
    frame_stride = 8
    frame_offset = 3.5

    def __init__(self, n_features=2048):
        super().__init__()
        self.n_features = n_features
        blocks = (_mel_block(n_inputs) for n_inputs in (1, 64, 64))
        self.features = nn.Sequential(*(part for block in blocks for part in block))
        self.fc = nn.Sequential(
            nn.Linear(64 * (N_MELS // 8), n_features),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(n_features, n_features),
            nn.ReLU(),
        )

    def frames(self, x):
        return self.fc(flatten_map(self.features(x)))


class AudioNTT2022(ByolNet):
    """BYOL-A's second encoder: two blocks, whose output stands beside an MLP's.

    Parameters
    ----------
    n_features : int, default=3072
        The 1024 of the convolutions among them.

    References
    ----------
    D. Niizumi et al., "BYOL for Audio: Exploring Pre-Trained General-Purpose Audio
    Representations", TASLP 2023, section IV.
    """

    min_frames = 4
    frame_stride = 4
    frame_offset = 1.5

    def __init__(self, n_features=3072):
        super().__init__()
        width = 64 * (N_MELS // 4)
        if n_features <= width:
            raise ValueError(
                f"n_features={n_features} of 'audiontt2022' counts the {width} "
                f"features of its convolutions. Give more; 3072 is published."
            )
        self.n_features = n_features
        self.features = nn.Sequential(*_mel_block(1), *_mel_block(64))
        self.fc = nn.Sequential(
            nn.Linear(width, 2048),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(2048, n_features - width),
            nn.ReLU(),
        )

    def frames(self, x):
        x = flatten_map(self.features(x))
        return torch.cat([x, self.fc(x)], dim=-1)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, n_inputs, n_outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_outputs)
        self.conv2 = nn.Conv2d(n_outputs, n_outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_outputs)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride > 1 or n_inputs != n_outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_inputs, n_outputs, 1, stride, bias=False),
                nn.BatchNorm2d(n_outputs),
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNetish34(ByolNet):
    """ResNet-34 with a first stride of one, without its pooling and classifier.

    References
    ----------
    G. Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by
    Bootstrapping", HEAR 2021, PMLR 166, 2022, section 2.3.
    """

    n_features = 2048
    min_frames = 1
    frame_stride = 16
    frame_offset = 0.0

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        width = 64
        layers = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
        for number, (depth, n_outputs, stride) in enumerate(layers, start=1):
            blocks = [_BasicBlock(width, n_outputs, stride)]
            blocks += [_BasicBlock(n_outputs, n_outputs, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            width = n_outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def frames(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return flatten_map(x)


class CLSTM(ByolNet):
    """Two convolution blocks and a bidirectional LSTM, of which the last step counts.

    So of the backward direction one step is seen, as in the published code.

    References
    ----------
    G. Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by
    Bootstrapping", HEAR 2021, PMLR 166, 2022, section 2.3.
    """

    n_features = 1024
    min_frames = 10
    frame_stride = 4
    frame_offset = 4.5
    aggregation = "last"

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 256, 9, padding=1),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(256, 256, (4, 3), padding=1),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.bilstm = nn.LSTM(3584, 512, batch_first=True, bidirectional=True)
        self.fc_final = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU())

    def frames(self, x):
        steps, _ = self.bilstm(flatten_map(self.conv(x)))
        return self.fc_final(steps)
