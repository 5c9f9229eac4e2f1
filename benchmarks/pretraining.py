"""BYOL pretraining: ours against the wiring of the published training scripts.

Run ``python -m benchmarks.pretraining``. The reference wiring is the one of
byol-pytorch with BYOL-A's data loading: waveforms read and augmented clip by clip in
worker processes, either view run through either network by itself in torch's default
memory layout, Adam and the moving average parameter by parameter. Encoder, batch,
crops, number of processors and initial weights are the same for both. The epochs take
turns; the figures are medians. "waiting" is the share of an epoch in which the
training waits for data.
"""

import copy
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.models import SAMPLE_RATE, noise_clips
from benchmarks.timing import print_table
from skaudioemb.encoders.byol import make_byol_encoder
from skaudioemb.encoders.byol_frontend import ByolFrontend
from skaudioemb.pretraining.byol import BYOLSettings, pretrain_byol

CROP = 15200
MEAN, STD = -5.0, 3.0
N_WORKERS = 2
RNG = np.random.default_rng(0)  # each worker draws from a copy of its own


class AugmentedClips(Dataset):
    """Two views of a random crop a clip, made one clip at a time."""

    def __init__(self, paths):
        self.paths = paths
        self.frontend = ByolFrontend("byol-s")
        self.bank = []

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        samples, _ = soundfile.read(self.paths[index], dtype="float32")
        start = RNG.integers(0, max(1, len(samples) - CROP + 1))
        crop = samples[start : start + CROP]
        crop = np.pad(crop, (0, CROP - len(crop)))
        x = (self.frontend(torch.from_numpy(crop)[None])[0] - MEAN) / STD
        return self.view(x), self.view(x)

    def view(self, x):
        """Mix in an earlier sound, then crop at random and resize."""
        mixed = x
        if self.bank:
            z = self.bank[RNG.integers(len(self.bank))]
            share = 0.4 * RNG.random()
            mixed = torch.log((1 - share) * x.exp() + share * z.exp() + 1.2e-7)
        self.bank = [*self.bank, x][-2048:]
        canvas = torch.zeros(1, 64, 144)
        canvas[:, :, 24:120] = mixed
        height = min(64, int((0.6 + 0.9 * RNG.random()) * 64))
        width = min(144, int((0.6 + 0.9 * RNG.random()) * 96))
        i = RNG.integers(0, 64 - height + 1)
        j = RNG.integers(0, 144 - width + 1)
        crop = canvas[None, :, i : i + height, j : j + width]
        return F.interpolate(crop, (64, 96), mode="bicubic", align_corners=True)[0]


def head(n_inputs, n_outputs):
    return nn.Sequential(
        nn.Linear(n_inputs, 4096),
        nn.BatchNorm1d(4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, n_outputs),
    )


class ReferenceTraining:
    """The wiring of the published scripts; each call is an epoch."""

    def __init__(self, encoder, paths, batch_size):
        n_features = encoder.n_features
        self.online = nn.Sequential(copy.deepcopy(encoder), head(n_features, 256))
        self.predictor = head(256, 256)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        parameters = [*self.online.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=3e-4)
        self.loader = DataLoader(
            AugmentedClips(paths),
            batch_size,
            shuffle=True,
            num_workers=N_WORKERS,
            persistent_workers=True,
        )

    def __call__(self):
        start = before = time.perf_counter()
        waited = 0.0
        for views in self.loader:
            waited += time.perf_counter() - before
            self.step(*views)
            before = time.perf_counter()
        return time.perf_counter() - start, waited

    def step(self, first, second):
        both = torch.cat([first, second])
        mean, std = both.mean(), both.std()
        views = [(view - mean) / std for view in (first, second)]
        predictions = [self.predictor(self.online(view)) for view in views]
        with torch.no_grad():
            targets = [self.target(view) for view in views]
        loss = sum(
            2 - 2 * F.cosine_similarity(p, z, dim=-1)
            for p, z in zip(predictions, reversed(targets), strict=True)
        ).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        pairs = zip(self.target.parameters(), self.online.parameters(), strict=True)
        for old, new in pairs:
            old.data = 0.99 * old.data + 0.01 * new.data


class OurTraining:
    """The trainer of skaudioemb; each call is an epoch."""

    def __init__(self, encoder, paths, batch_size):
        self.settings = BYOLSettings(batch_size=batch_size)
        self.train = partial(
            pretrain_byol,
            encoder,
            ByolFrontend("byol-s"),
            paths,
            normalization=(MEAN, STD),
        )
        self.state, self.n_epochs = None, 0

    def __call__(self):
        self.n_epochs += 1
        settings = BYOLSettings(
            batch_size=self.settings.batch_size, max_epochs=self.n_epochs
        )
        done = self.train(settings=settings, state=self.state)
        self.state = done.state
        seconds = done.history[-1]["seconds"]
        return seconds, done.history[-1]["waiting"] * seconds


def compare(name, n_features, n_clips, batch_size, repeats):
    torch.manual_seed(0)
    encoder = make_byol_encoder(name, n_features)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for k, clip in enumerate(noise_clips(n_clips, 1.0, 4.0)):
            paths.append(str(Path(folder) / f"{k}.wav"))
            soundfile.write(paths[-1], clip, SAMPLE_RATE)
        trainings = {
            "reference wiring": ReferenceTraining(encoder, paths, batch_size),
            "skaudioemb": OurTraining(encoder, paths, batch_size),
        }
        for training in trainings.values():
            training()
        times = {way: [] for way in trainings}
        for _ in range(repeats):
            for way, training in trainings.items():
                times[way].append(training())
    return {
        way: tuple(map(statistics.median, zip(*t, strict=True)))
        for way, t in times.items()
    }


def main(n_clips=64, batch_size=32, repeats=3):
    rows = []
    for name, n_features in (("audiontt2020", 512), ("audiontt2020", 2048)):
        times = compare(name, n_features, n_clips, batch_size, repeats)
        reference = times["reference wiring"][0]
        for way, (seconds, waited) in times.items():
            rows.append(
                (
                    f"{name} {n_features}, {way}",
                    f"{n_clips / seconds:.1f}",
                    f"{reference / seconds:.2f}",
                    f"{waited / seconds:.1%}",
                )
            )
    print_table(
        f"BYOL, {n_clips} clips of 1 to 4 s an epoch in batches of {batch_size}",
        ("", "clips/s", "ratio", "waiting"),
        rows,
    )


if __name__ == "__main__":
    main()
