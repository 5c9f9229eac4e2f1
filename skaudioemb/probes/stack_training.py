"""Training of many probes at once: who shares a stack, and the epochs of a stack."""

import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from types import SimpleNamespace

import torch
from torch.nn import functional as F
from tqdm import tqdm

from skaudioemb.devices import free_memory, is_out_of_memory
from skaudioemb.probes.scoring import ValidationScore, resolve_scorer
from skaudioemb.probes.stack_members import Feed
from skaudioemb.probes.stacked import StackedNetwork
from skaudioemb.probes.targets import UNSEEN
from skaudioemb.probes.training import threads_for

# Values of one hidden layer of a stack that a core's cache holds beside the weights.
_CPU_VALUES = 2**19
_FREE_MEMORY_PART = 0.5
# A little less than the largest chunk by which glibc's malloc adapts.
_ADAPTING_CHUNK = 2**25 - 2**16


def train_together(trainings, progress):
    """Train probes, those of one shape and number of rows as stacked networks.

    On a GPU a stack is as large as memory allows. On a CPU, where a wide layer of one
    member already fills a core, stacks are cut so that their activations stay in its
    cache, and every core trains stacks of its own.

    Parameters
    ----------
    trainings : list of Training
        Their nets and times are filled in. Where ``net`` stays None, a scorer raised
        an exception.
    progress : Progress
    """
    n_threads = torch.get_num_threads()
    stacks = _form_stacks(trainings, n_threads)
    n_workers = max(1, min(n_threads, len(stacks)))
    if any(training.device.type == "cuda" for training in trainings):
        n_workers = 1
    _let_memory_be_reused()
    stop = threading.Event()

    def run(members):
        shape, *_, n_rows = members[0].stack_key
        n_products = len(members) * shape.n_weights * n_rows
        torch.set_num_threads(max(1, n_threads // n_workers))
        with torch.no_grad(), threads_for(n_products):
            _train_stack(members, progress, stop)

    with ThreadPoolExecutor(n_workers) as pool:
        try:
            futures = [pool.submit(run, members) for members in stacks]
            # Whichever fails first ends the others, though they may come before it.
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _let_memory_be_reused():
    """Free a large chunk, so that malloc holds on to those that are freed later.

    Until glibc has met one, it gives the activations of every step back to the system
    and asks for them again; on a CPU this took a fifth of the time.
    """
    torch.empty(_ADAPTING_CHUNK, dtype=torch.uint8)


def _form_stacks(trainings, n_threads):
    """Return lists of trainings, those that take longest first."""
    groups = {}
    for training in trainings:
        groups.setdefault(training.stack_key, {}).setdefault(
            training.feed_key, []
        ).append(training)
    stacks = []
    for (shape, *_, n_rows), feeds in groups.items():
        members = [member for feed in feeds.values() for member in feed]
        size = _stack_size(members, n_threads)
        cost = shape.n_weights * n_rows * max(m.probe.max_epochs for m in members)
        for start in range(0, len(members), size):
            stacks.append((-cost, members[start : start + size]))
    return [members for _, members in sorted(stacks, key=lambda stack: stack[0])]


def _stack_size(members, n_threads):
    shape, *_, batch_size = members[0].stack_key
    device = members[0].device
    width = max(shape.hidden_units, shape.n_outputs)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        depth = 2 + 6 * shape.hidden_layers
        values = 7 * shape.n_weights + batch_size * (shape.n_features + depth * width)
        return max(1, int(_FREE_MEMORY_PART * free / (4 * values)))
    size = max(1, _CPU_VALUES // (width * batch_size))
    return min(size, -(-len(members) // n_threads))


def _train_stack(members, progress, stop):
    try:
        Stack(members, progress, stop).run()
    except Exception as error:
        if len(members) == 1 or not is_out_of_memory(error):
            raise
        too_large = True
    else:
        too_large = False
    if too_large:
        free_memory()
        middle = len(members) // 2
        for part in (members[:middle], members[middle:]):
            progress.forget(part)
            _train_stack(part, progress, stop)


class Stack:
    """Members that train in step, each until it is finished.

    Parameters
    ----------
    members : list of Training
        All with the same ``stack_key``.
    progress : Progress
    stop : threading.Event
        Ends the training before its time.
    """

    def __init__(self, members, progress, stop):
        self.members = list(members)
        self.progress = progress
        self.stop = stop
        first = members[0]
        self.device, self.multilabel = first.device, first.shape.multilabel
        self.network = StackedNetwork(
            [member.start() for member in members],
            first.shape,
            [member.probe.lr for member in members],
            [member.probe.dropout for member in members],
            [member.seed for member in members],
            self.device,
        )
        self.feeds = {}
        for member in members:
            if member.feed_key not in self.feeds:
                self.feeds[member.feed_key] = Feed(member)

    def run(self):
        """Train until every member is finished."""
        epoch = 0
        while self.members and not self.stop.is_set():
            epoch += 1
            start = time.perf_counter()
            self._train_epoch()
            self._validate([i for i, m in enumerate(self.members) if m.is_due(epoch)])
            share = (time.perf_counter() - start) / len(self.members)
            for member in self.members:
                member.seconds += share
            self._dismiss()

    def _train_epoch(self):
        used = {member.feed_key: None for member in self.members}
        feeds = [self.feeds[key].batches() for key in used]
        position = {key: i for i, key in enumerate(used)}
        chosen = [position[member.feed_key] for member in self.members]
        total, n_rows = 0.0, 0
        for batches in zip(*feeds, strict=True):
            X, targets = batches[0]
            if len(batches) > 1:
                X, targets = (
                    torch.stack([part[i] for part in batches])[chosen] for i in (0, 1)
                )
            size = X.shape[-2]
            total = total + self.network.step(X, targets) * size
            n_rows += size
        losses = (total / n_rows).tolist()
        for member, loss in zip(self.members, losses, strict=True):
            member.history.append({"train_loss": loss})

    def _validate(self, due):
        """Record loss and score of the members at these positions."""
        groups = {}
        for i in due:
            groups.setdefault(id(self.members[i].valid), []).append(i)
        for positions in groups.values():
            valid = self.members[positions[0]].valid
            everyone = len(positions) == len(self.members)
            logits = self._logits(valid.X, slice(None) if everyone else positions)
            losses = self._losses(logits, valid.codes).tolist()
            nonlinearity = torch.sigmoid if self.multilabel else _softmax
            outputs = nonlinearity(logits).mT.cpu().numpy()
            for i, loss, output in zip(positions, losses, outputs, strict=True):
                self._record(self.members[i], loss, output)

    def _logits(self, X, members):
        size = self.members[0].probe.batch_size
        parts = [
            self.network.logits(part.to(self.device), members) for part in X.split(size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _losses(self, logits, codes):
        """Return the means over the batches that skorch would have made."""
        size = self.members[0].probe.batch_size
        total = 0.0
        for part, wanted in zip(
            logits.split(size, dim=-1), codes.split(size), strict=True
        ):
            total = total + _mean_loss(part, wanted) * len(wanted)
        return total / len(codes)

    @staticmethod
    def _record(member, loss, probabilities):
        member.history[-1]["valid_loss"] = loss
        if member.probe.scoring == "loss":
            return
        try:
            member.history[-1]["score"] = _score(member, probabilities)
        except Exception as error:
            member.give_up(error)

    def _dismiss(self):
        """Let the members go that are finished."""
        staying = []
        for i, member in enumerate(self.members):
            state = partial(self.network.state_of, i)
            if member.net is not None and member.check(state):
                staying.append(i)
                continue
            if member.net is not None:
                member.finish(state())
            self.progress.finished(member)
        self.progress.advance(len(self.members))
        if len(staying) < len(self.members):
            self.members = [self.members[i] for i in staying]
            if staying:
                self.network.keep(staying)


class Progress:
    """A bar over the epochs of all members, or nothing.

    Parameters
    ----------
    trainings : list of Training
    verbose : int
        If positive, show the bar.
    """

    def __init__(self, trainings, verbose):
        self.lock = threading.Lock()
        self.bar = None
        self.n_finished, self.n_trainings = 0, len(trainings)
        if verbose and trainings:
            total = sum(training.probe.max_epochs for training in trainings)
            self.bar = tqdm(total=total, desc="ProbeSearchCV", unit="epoch")

    def advance(self, n_epochs):
        """Count epochs of members."""
        if self.bar is not None:
            with self.lock:
                self.bar.update(n_epochs)

    def finished(self, member):
        """Count a member as finished, and its further epochs as not needed."""
        if self.bar is not None:
            with self.lock:
                self.n_finished += 1
                self.bar.total -= member.probe.max_epochs - len(member.history)
                done = f"{self.n_finished}/{self.n_trainings} fits"
                self.bar.set_postfix_str(done, refresh=False)

    def forget(self, members):
        """Take back the epochs of members that start again."""
        if self.bar is not None:
            with self.lock:
                self.bar.n -= sum(len(member.history) for member in members)

    def close(self):
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def _score(member, probabilities):
    probe, rows = member.probe, member.valid.source
    scorer = resolve_scorer(probe.scoring)
    score = ValidationScore(rows.X, rows.labels, probe._targets, scorer)
    net = SimpleNamespace(predict_proba=lambda _: probabilities)
    return score(net, None, rows.codes)


def _softmax(logits):
    return torch.softmax(logits, dim=1)


def _mean_loss(logits, codes):
    """Return the mean loss of each member over rows with a known label."""
    if codes.ndim == 2:
        codes = codes.T.expand_as(logits)
        each = F.binary_cross_entropy_with_logits(logits, codes, reduction="none")
        return each.mean(dim=(1, 2))
    each = F.cross_entropy(
        logits, codes.expand(len(logits), -1), reduction="none", ignore_index=UNSEEN
    )
    return each.sum(dim=1) / (codes != UNSEEN).sum()
