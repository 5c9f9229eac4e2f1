"""BYOL's encoders and front ends against their reference vectors, and their files."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from skaudioemb import devices
from skaudioemb.encoders import byol_weights
from skaudioemb.encoders.byol import ENCODERS, make_byol_encoder
from skaudioemb.encoders.byol_blocks import aggregate
from skaudioemb.encoders.byol_cvt import ChannelNorm, Transformer
from skaudioemb.encoders.byol_frontend import FRONTENDS, ByolFrontend
from skaudioemb.encoders.byol_published import PUBLISHED
from skaudioemb.encoders.byol_spec import ByolSpec, ByolWindowsSpec
from skaudioemb.encoders.byol_tensors import digest_of
from skaudioemb.encoders.byol_weights import HeldWeights, find
from tests import byol_golden
from tests.byol_golden import arrays, distance, meta, network, rule_state, statistics_of
from tests.models import byol_file

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", byol_golden.ENCODERS)
def test_tensors_are_named_and_sized_as_published(name):
    expected = meta()["encoders"][name]
    encoder = make_byol_encoder(*byol_golden.ENCODERS[name])
    found = {key: list(value.shape) for key, value in encoder.state_dict().items()}
    assert found == {key: shape for key, shape, _ in expected["tensors"]}
    assert list(found) == [key for key, _, _ in expected["tensors"]]
    n_params = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert n_params == expected["n_trainable_params"]
    assert encoder.n_features == expected["embedding_size"]
    assert encoder.min_frames == expected["min_frames"]
    for key, value in rule_state(name).items():
        (total,) = (total for k, _, total in expected["tensors"] if k == key)
        assert total is None or float(value.double().sum()) == pytest.approx(total)


def test_number_of_parameters_of_the_middle_width():
    encoder = make_byol_encoder("audiontt2020", 1024)
    assert sum(p.numel() for p in encoder.parameters()) == 1649792


@pytest.mark.parametrize("name", byol_golden.FRONTENDS)
def test_log_mel(name):
    frontend = ByolFrontend(byol_golden.FRONTENDS[name])
    # The second one's vectors come from another library.
    limit = 5e-4 if name == "byol-a-v2" else 1e-4
    for clip in ("clip0", "clip3"):
        found = frontend(torch.from_numpy(arrays("clips")[clip])[None])[0, 0]
        expected = arrays("logmel")[f"{name}/{clip}"]
        assert found.shape == expected.shape
        assert np.abs(found.numpy() - expected).max() < limit


def test_long_clips_have_the_log_mel_of_their_parts(monkeypatch):
    frontend = ByolFrontend("byol-s")
    clips = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9999)))
    whole = frontend(clips.float())
    monkeypatch.setattr("skaudioemb.encoders.byol_frontend.CHUNK", 7)
    torch.testing.assert_close(frontend(clips.float()), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", arrays("embeddings"))
def test_embeddings(key):
    name, frontend, clip = key.split("/")
    mean, std = statistics_of(frontend)
    x = (arrays("logmel")[f"{frontend}/{clip}"] - np.float32(mean)) / np.float32(std)
    embedding = network(name)(torch.from_numpy(x)[None, None])[0]
    assert distance(embedding, arrays("embeddings")[key]) < 1e-5


@pytest.mark.parametrize("key", arrays("frames"))
def test_frames(key):
    name, frontend, clip = key.split("/")
    mean, std = statistics_of(frontend)
    x = (arrays("logmel")[f"{frontend}/{clip}"] - np.float32(mean)) / np.float32(std)
    frames = network(name).frames(torch.from_numpy(x)[None, None])[0]
    assert distance(frames, arrays("frames")[key]) < 1e-5


def test_blocks_of_cvt():
    blocks = {key: torch.from_numpy(value) for key, value in arrays("blocks").items()}
    norm = ChannelNorm(blocks["cvt_layernorm/g"].shape[1])
    norm.load_state_dict({name: blocks[f"cvt_layernorm/{name}"] for name in "gb"})
    found = norm(blocks["cvt_layernorm/in"]).detach()
    assert distance(found, blocks["cvt_layernorm/out"].numpy()) < 1e-6
    wrong = blocks["cvt_layernorm/out_if_eps_inside_root"].numpy()
    assert distance(found, wrong) > 5e-6
    block = Transformer(16, 3).eval()
    block.load_state_dict(rule_state("block_cvt_transformer_dim16_heads3_dimhead64"))
    found = block(blocks["cvt_transformer/in"]).detach()
    assert distance(found, blocks["cvt_transformer/out"].numpy()) < 1e-5


def test_cvt_with_averaged_mel_bands():
    apart, averaged = (make_byol_encoder(name).eval() for name in ("cvt", "cvt-512"))
    averaged.load_state_dict(apart.state_dict())
    x = torch.randn(2, 1, 64, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = apart.frames(x).view(2, 3, 4, 512).mean(dim=(1, 2))
        torch.testing.assert_close(averaged(x), expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_number_and_places_of_frames(name):
    """Counts are those that specs promise, and a click is seen where it is."""
    width = {"audiontt2020": 16, "audiontt2022": 1030}.get(name)
    torch.manual_seed(1)
    encoder = make_byol_encoder(name, width).eval()
    spec = ByolSpec(HeldWeights("", {}), name, encoder.n_features, "byol-s", (0, 1))
    for n_mels in (encoder.min_frames, encoder.min_frames + 1, 31, 48, 49, 50):
        x = torch.zeros(1, 1, 64, n_mels)
        with torch.inference_mode():
            frames = encoder.frames(x)
            assert len(encoder(x)[0]) == encoder.n_features
        assert frames.shape == (1, spec.frames_of(n_mels), encoder.n_features)
    x = torch.zeros(1, 1, 64, 320)
    x[..., 158:162] = 30.0
    with torch.inference_mode():
        silence = encoder.frames(torch.zeros_like(x))
        changed = (encoder.frames(x) - silence).norm(dim=-1)[0].double().numpy()
    times = spec.frame_times(len(changed))
    if name != "clstm":
        centre = np.average(times, weights=changed**2)
        assert centre == pytest.approx(1.595, abs=0.5 * (times[1] - times[0]))


def test_aggregation():
    frames = torch.tensor([[[1.0, 5.0], [3.0, 1.0]]])
    for how, expected in {
        "mean": [2, 3],
        "max": [3, 5],
        "mean+max": [5, 8],
        "last": [3, 1],
    }.items():
        assert aggregate(frames, how).tolist() == [expected]


@pytest.mark.parametrize("row", meta()["timestamps"], ids=str)
def test_number_and_times_of_windows(row):
    hop = row["hop_ms"] / 1000
    weights = HeldWeights("", {})
    given = (weights, "audiontt2020", 512, "byol-s", (0.0, 1.0))
    spec = ByolWindowsSpec(*given, hop=hop)
    assert spec.n_frames(row["n_samples"]) == row["count"]
    last = spec.frame_times(row["count"])[-1]
    assert last * 1000 == pytest.approx(row["last_ms"], abs=1e-3)


@pytest.mark.parametrize("encoder", ["audiontt2020", "audiontt2022"])
def test_parts_of_long_clips_change_nothing(encoder):
    """The frames on either side are all that these encoders see."""
    made = make_byol_encoder(encoder, {"audiontt2022": 1040}.get(encoder, 16))
    weights = HeldWeights.of(made.state_dict())
    given = (weights, encoder, made.n_features, "byol-s", (-4.0, 3.0))
    clip = torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, 100001)).float()
    (_, whole), (_, parts) = (
        next(ByolSpec(*given, limit).load(CPU, torch.float32)([clip]))
        for limit in (None, 1.0)
    )
    assert distance(parts, whole.numpy()) < 1e-5


@pytest.mark.parametrize("encoder", ["resnetish34", "clstm", "cvt"])
def test_parts_of_long_clips_have_all_frames(encoder):
    made = make_byol_encoder(encoder)
    weights = HeldWeights.of(made.state_dict())
    spec = ByolSpec(weights, encoder, made.n_features, "byol-s", (-4.0, 3.0), 1.0)
    clip = torch.zeros(40001)
    ((_, frames),) = spec.load(CPU, torch.float32)([clip])
    assert len(frames) == spec.n_frames(len(clip))


def test_specs_share_a_network():
    file = find(byol_file())
    given = (file, "audiontt2020", 32, "byol-s")
    first, second = (
        devices.load_encoder(ByolSpec(*given, (mean, 1.0)), CPU, "float32")
        for mean in (0.0, 1.0)
    )
    assert first is not second
    assert first.network is second.network


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    given = (find(byol_file()), "audiontt2020", 32, "byol-s", (-4.0, 3.0))
    clip = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 8000)).float()
    (_, full), (_, half) = (
        next(ByolSpec(*given).load(CPU, getattr(torch, name))([clip]))
        for name in ("float32", dtype)
    )
    assert 0 < distance(half.float(), full.numpy()) < 0.03


def test_a_spec_is_a_value():
    spec = ByolSpec(find(byol_file()), "audiontt2020", 32, "byol-s", (-4.0, 3.0))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len(pickle.dumps(spec)) < 1000
    identities = {
        spec.identity,
        ByolSpec(spec.weights, "audiontt2020", 32, "byol-a", (-4.0, 3.0)).identity,
        ByolSpec(spec.weights, "audiontt2020", 32, "byol-s", (-4.0, 3.1)).identity,
        ByolSpec(spec.weights, "audiontt2020", 32, "byol-s", "clip").identity,
        ByolWindowsSpec(spec.weights, "audiontt2020", 32, "byol-s", "clip").identity,
    }
    assert len(identities) == 5
    assert str(byol_file()) not in "".join(identities)


class TestFiles:
    def state(self):
        return torch.load(byol_file(), weights_only=True)

    def test_content_has_one_name(self, tmp_path):
        state = self.state()
        state.pop("features.1.num_batches_tracked")
        byol_weights.save(
            tmp_path / "w.safetensors",
            state,
            encoder="audiontt2020",
            n_features=32,
            frontend="byol-s",
            mean=1.0,
            std=2.0,
        )
        found = find(tmp_path / "w.safetensors").description
        assert found.digest == find(byol_file()).digest
        assert found[3:] == ("byol-s", 1.0, 2.0)
        state["fc.3.bias"][0] += 1
        assert digest_of(state) != found.digest

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda s: {"state_dict": s, "epoch": 3},
            lambda s: {f"body.{name}": value for name, value in s.items()},
            lambda s: {"model": {"module.net." + n: v for n, v in s.items()}},
            lambda s: {
                **{f"target.net.{n}": v + 1 for n, v in s.items()},
                **{f"online.net.{n}": v for n, v in s.items()},
                "online.projector.0.weight": torch.zeros(3, 3),
            },
            lambda s: {n: v for n, v in s.items() if "num_batches" not in n},
            lambda s: {n: v.double() for n, v in s.items()},
        ],
        ids=["wrapped", "prefixed", "both", "training", "no counters", "double"],
    )
    def test_ways_in_which_weights_are_saved(self, wrap, tmp_path):
        torch.save(wrap(self.state()), tmp_path / "w.pth")
        found = find(tmp_path / "w.pth")
        assert found.digest == find(byol_file()).digest
        make_byol_encoder("audiontt2020", 32).load_state_dict(found.state())

    @pytest.mark.parametrize("name", ["audiontt2022", "resnetish34", "clstm", "cvt"])
    def test_encoders_are_recognised(self, name, tmp_path):
        state = make_byol_encoder(name).state_dict()
        torch.save(state, tmp_path / "w.pth")
        told = find(tmp_path / "w.pth").description
        assert told.encoder == name
        assert told.n_features == (3072 if name == "audiontt2022" else None)

    def test_a_changed_file_is_noticed(self, tmp_path):
        path = shutil.copy(byol_file(), tmp_path / "w.pth")
        before = find(path).digest
        torch.save({n: v + 1 for n, v in self.state().items()}, path)
        assert find(path).digest != before

    def test_statistics_beside_a_checkpoint(self, tmp_path):
        shutil.copy(byol_file(), tmp_path / "checkpoint.pth")
        (tmp_path / "stats.csv").write_text("mean,std\n-7.5,4.25\n")
        told = find(tmp_path).description
        assert (told.mean, told.std, told.frontend) == (-7.5, 4.25, "byol-a")
        (tmp_path / "stats.csv").write_text("mu,sigma\n-7.5,4.25\n")
        with pytest.raises(ValueError, match=r"stats\.csv.*columns mean and std"):
            _ = find(tmp_path).description

    def test_files_that_are_no_weights(self, tmp_path):
        path = tmp_path / "w.pth"
        for content, match in (
            (b"", "could not be read as weights"),
            (b"RIFF and more", "could not be read as weights"),
        ):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=match):
                _ = find(path).description
        torch.save({"layer.weight": torch.zeros(2)}, path)
        with pytest.raises(ValueError, match=r"no weights of a BYOL.*layer\.weight"):
            _ = find(path).description
        torch.save([1, 2], path)
        with pytest.raises(ValueError, match=r"no weights of a BYOL encoder\. Known"):
            _ = find(path).description
        state = self.state()
        state["fc.0.weight"] = state["fc.0.weight"][:, :100]
        torch.save(state, path)
        with pytest.raises(ValueError, match=r"fc\.0\.weight.*\(32, 100\).*\(32, 512"):
            _ = find(path).description

    def test_code_in_a_file_is_not_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (tmp_path / "made").mkdir, ()

        torch.save({"state_dict": self.state(), "more": Evil()}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"could not be read.*run their code"):
            _ = find(tmp_path / "w.pth").description
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"format": "other"}, "not as save_weights writes it"),
            ({"frontend": "mel"}, "not as save_weights writes it"),
            ({"version": 2}, "later version"),
            ({"encoder": "cvt"}, "do not belong together"),
            ({"n_features": 64}, "do not belong together"),
        ],
    )
    def test_wrong_sidecars(self, change, match, tmp_path):
        told = {
            **{"encoder": "audiontt2020", "n_features": 32, "frontend": "byol-s"},
            **{"mean": None, "std": None, **change},
        }
        byol_weights.save(tmp_path, self.state(), **told)
        with pytest.raises(ValueError, match=match):
            _ = find(tmp_path).description

    def test_files_that_are_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file of weights.*byol_s_cvt"):
            find(tmp_path / "w.pth")
        with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors"):
            find(tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights(name):
    published = PUBLISHED[name]
    encoder = make_byol_encoder(published.encoder, published.n_features)
    assert encoder.n_features == published.n_features
    if not published.is_free_to_fetch:
        with pytest.raises(ValueError, match="not fetched by name") as caught:
            find(name)
        assert published.url in str(caught.value)
    assert (published.licence == "MIT") == (
        name.startswith("byol_s_") and "hyb" not in name
    )


def test_licences_are_told():
    with pytest.raises(ValueError, match="internal evaluation only"):
        find("byol_a_2048")
    with pytest.raises(ValueError, match=r"openSMILE.*for research"):
        find("byol_s_hybrid_cvt")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: make_byol_encoder("vit"), "encoder='vit' is not known.*'clstm'"),
        (lambda: make_byol_encoder("cvt", 512), "have 2048 features"),
        (lambda: make_byol_encoder("audiontt2022", 512), "Give more; 3072"),
        (lambda: ByolFrontend("mel"), "frontend='mel' is not known"),
        (lambda: ByolFrontend("byol-s")(torch.zeros(1, 512)), "512 samples.*needs 513"),
    ],
)
def test_mistakes_get_a_sentence(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_front_ends_differ():
    clip = torch.from_numpy(arrays("clips")["clip0"])[None]
    found = [ByolFrontend(name)(clip) for name in FRONTENDS]
    assert all(
        (a - b).abs().max() > 0.1 for i, a in enumerate(found) for b in found[:i]
    )
