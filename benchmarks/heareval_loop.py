"""A re-enactment of heareval's prediction stage, on PyTorch Lightning as it is.

Needs ``pip install pytorch-lightning``, and for event tasks ``sed_eval dcase_util``.
One fit comes after the other. Rows are collated one by one and never shuffled; a
validation has two forward passes, gathers its outputs row by row, and computes all
scores of the task, those of events with every post-processing setting. Checkpoints,
a log in a CSV file and the simple profiler are heareval's own settings of the trainer.
"""

import logging
import tempfile
import warnings
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from scipy.ndimage import median_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import DataLoader

from benchmarks.scores import contain, sed_eval_score
from skaudioemb.probes.network import ProbeNetwork

BATCH_SIZE, PATIENCE, MAX_EPOCHS = 1024, 20, 500
# Milliseconds, as in HEAR's own grid.
POSTPROCESSING = [(250, 125), (250, 250)]


class Prediction(pl.LightningModule):
    """One grid point; ``scores`` computes a dict of the task's scores, primary first.

    Parameters
    ----------
    n_features, n_labels : int
    point : tuple of (int, str, float)
        Hidden layers, initialisation, learning rate.
    multilabel : bool
    scores : callable
        Takes targets and probabilities.
    """

    def __init__(self, n_features, n_labels, point, multilabel, scores):
        super().__init__()
        layers, init, self.lr = point
        self.net = ProbeNetwork(n_features, n_labels, layers, 1024, 0.1, init)
        self.multilabel = multilabel
        self.scores = scores
        self.outputs = []

    def loss(self, logits, Y):
        if self.multilabel:
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, Y)
        return torch.nn.functional.cross_entropy(logits, Y.argmax(dim=1))

    def probabilities(self, X):
        activate = torch.sigmoid if self.multilabel else _softmax
        return activate(self.net(X))

    def training_step(self, batch, _):
        X, Y = batch
        loss = self.loss(self.net(X), Y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        X, Y = batch
        self.outputs.append((self.net(X), self.probabilities(X), Y))

    def on_validation_epoch_end(self):
        columns = [
            torch.stack([row for batch in part for row in batch])
            for part in zip(*self.outputs, strict=True)
        ]
        self.outputs = []
        logits, probabilities, Y = columns
        self.log("val_loss", self.loss(logits, Y))
        found = self.scores(Y.numpy(), probabilities.numpy())
        for name, score in found.items():
            self.log(f"val_{name}", float(score))
        self.log("val_score", float(next(iter(found.values()))), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), lr=self.lr)


def _softmax(logits):
    return torch.softmax(logits, dim=1)


def fit(module, train, valid, check_every, folder):
    """Train one grid point; return its best validation score, epochs and network."""
    quiet = warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=folder)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with quiet[0], quiet[1] as own:
        warnings.simplefilter("ignore")
        best = ModelCheckpoint(own, monitor="val_score", mode="max")
        stop = EarlyStopping(
            "val_score", patience=PATIENCE, mode="max", check_on_train_epoch_end=False
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=[best, stop],
            check_val_every_n_epoch=check_every,
            max_epochs=MAX_EPOCHS,
            num_sanity_val_steps=0,
            logger=CSVLogger(own),
            profiler="simple",
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        loaders = (DataLoader(rows, BATCH_SIZE) for rows in (train, valid))
        trainer.fit(module, *loaders)
        kept = torch.load(best.best_model_path, weights_only=False)["state_dict"]
        module.load_state_dict(kept)
        return SimpleNamespace(
            score=float(best.best_model_score),
            n_epochs=trainer.current_epoch,
            module=module.eval(),
        )


def clip_scores(Y, probabilities):
    """Return the four scores of HEAR's scene tasks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        areas = roc_auc_score(Y, probabilities, average=None)
        return {
            "top1_acc": np.mean(probabilities.argmax(axis=1) == Y.argmax(axis=1)),
            "mAP": average_precision_score(Y, probabilities, average="macro"),
            "d_prime": np.mean(areas),
            "aucroc": roc_auc_score(Y, probabilities, average="macro"),
        }


class EventScores:
    """Onset F of the best post-processing setting, by scipy and sed_eval.

    Parameters
    ----------
    times : list of ndarray
        Milliseconds of the frames of each file.
    events : list of list of Event
        The truth, in seconds.
    labels : list of str
    """

    def __init__(self, times, events, labels):
        self.times = times
        self.events = events
        self.labels = labels

    def __call__(self, Y, probabilities):
        scores = [self.score(probabilities, *setting) for setting in POSTPROCESSING]
        best = int(np.nanargmax(np.nan_to_num(scores)))
        found = self.found(probabilities, *POSTPROCESSING[best])
        # Events with the chosen setting get all scores of the task once more.
        return {
            "onset": np.nan_to_num(self.evaluate(found, "onset")),
            "segment": self.evaluate(found, "segment"),
        }

    def score(self, probabilities, *setting):
        return self.evaluate(self.found(probabilities, *setting), "onset")

    def evaluate(self, found, score):
        files = contain(self.events), contain(found)
        return sed_eval_score(*files, self.labels, score)

    def found(self, probabilities, width_ms, shortest):
        """Return the events of each file as (label, start, end) in seconds."""
        files, row = [], 0
        for times in self.times:
            # heareval keeps a dict of frames for each file and sorts it.
            frames = {}
            for time in times:
                frames[float(time)] = probabilities[row]
                row += 1
            files.append(self.of_file(dict(sorted(frames.items())), width_ms, shortest))
        return files

    def of_file(self, frames, width_ms, shortest):
        times = np.array(list(frames))
        values = np.stack(list(frames.values()))
        width = round(width_ms / np.mean(np.diff(times)))
        active = median_filter(values, size=(width, 1)) > 0.5
        events = []
        for column, label in enumerate(self.labels):
            runs = np.flatnonzero(active[:, column])
            for run in np.split(runs, np.flatnonzero(np.diff(runs) != 1) + 1):
                if len(run) and times[run[-1]] - times[run[0]] >= shortest:
                    ends = times[run[0]] / 1000, times[run[-1]] / 1000
                    events.append((label, *ends))
        return sorted(events, key=lambda event: event[1])
