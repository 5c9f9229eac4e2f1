"""Tiny random models that take the features of an extractor.

They are registered among the builders of :mod:`tests.hf_models`.
"""

import torch
import transformers

from tests.hf_models import family, random_model, save

_SIZE = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


def lively_model(model_class, config, seed=0):
    """Return a model whose frames depend on the sound as much as on the biases.

    The usual small weights would hide mistakes behind several layers.
    """
    model = random_model(model_class, config, seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
    return model


@family("wav2vec2-bert")
def wav2vec2_bert(folder, seed=0, **settings):
    config = transformers.Wav2Vec2BertConfig(
        **_SIZE, conv_depthwise_kernel_size=7, **settings
    )
    model = lively_model(transformers.Wav2Vec2BertModel, config, seed)
    return save(folder, model, transformers.SeamlessM4TFeatureExtractor())


def parakeet_config():
    return transformers.ParakeetEncoderConfig(
        **_SIZE, num_mel_bins=40, subsampling_conv_channels=8, conv_kernel_size=5
    )


@family("parakeet")
def parakeet(folder, seed=0):
    model = lively_model(transformers.ParakeetEncoder, parakeet_config(), seed)
    extractor = transformers.ParakeetFeatureExtractor(feature_size=40)
    return save(folder, model, extractor)


@family("parakeet-ctc")
def parakeet_ctc(folder, seed=0):
    config = transformers.ParakeetCTCConfig(
        vocab_size=11, pad_token_id=10, encoder_config=parakeet_config()
    )
    model = lively_model(transformers.ParakeetForCTC, config, seed)
    extractor = transformers.ParakeetFeatureExtractor(feature_size=40)
    return save(folder, model, extractor).encoder


def whisper_config(n_mels=80, seconds=2):
    return transformers.WhisperConfig(
        d_model=24,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=40,
        num_mel_bins=n_mels,
        max_source_positions=50 * seconds,
        vocab_size=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )


def whisper_extractor(n_mels=80, seconds=2):
    return transformers.WhisperFeatureExtractor(
        feature_size=n_mels, chunk_length=seconds
    )


@family("whisper")
def whisper(folder, seed=0, model_class=transformers.WhisperModel, **settings):
    config = whisper_config(**settings)
    model = lively_model(model_class, config, seed)
    seconds = config.max_source_positions // 50
    extractor = whisper_extractor(config.num_mel_bins, seconds)
    return save(folder, model, extractor).get_encoder()


@family("whisper-asr")
def whisper_asr(folder, seed=0):
    # Weights have another prefix in it.
    model_class = transformers.WhisperForConditionalGeneration
    return whisper(folder, seed, model_class)


_AUDIO_TOWER = {
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "d_model": 24,
    "num_mel_bins": 80,
    "max_source_positions": 100,
}
_LANGUAGE = {**_SIZE, "vocab_size": 32, "num_key_value_heads": 2, "head_dim": 6}


@family("qwen2-audio")
def qwen2_audio(folder, seed=0):
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **_AUDIO_TOWER},
        text_config={"model_type": "qwen2", **_LANGUAGE},
        audio_token_index=3,
    )
    model_class = transformers.Qwen2AudioForConditionalGeneration
    model = lively_model(model_class, config, seed)
    return save(folder, model, whisper_extractor()).model.audio_tower


@family("voxtral")
def voxtral(folder, seed=0):
    audio = {"num_mel_bins": 80, "max_source_positions": 100, **_SIZE}
    config = transformers.VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", **audio},
        text_config={"model_type": "llama", **_LANGUAGE},
        audio_token_id=3,
    )
    model_class = transformers.VoxtralForConditionalGeneration
    model = lively_model(model_class, config, seed)
    return save(folder, model, whisper_extractor()).model.audio_tower


@family("moonshine")
def moonshine(folder, seed=0):
    config = transformers.MoonshineConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=40,
        encoder_num_hidden_layers=3,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
    )
    model = lively_model(transformers.MoonshineModel, config, seed)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    return save(folder, model, extractor).encoder


@family("ast")
def ast(folder, seed=0, model_class=transformers.ASTModel):
    config = transformers.ASTConfig(**_SIZE, max_length=96, num_mel_bins=64)
    model = lively_model(model_class, config, seed)
    extractor = transformers.ASTFeatureExtractor(max_length=96, num_mel_bins=64)
    return save(folder, model, extractor)


def clap_config(enable_fusion=False):
    audio = transformers.ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        window_size=4,
        patch_embeds_hidden_size=8,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        hidden_size=16,
        num_hidden_layers=2,
        projection_dim=12,
        enable_fusion=enable_fusion,
        fusion_type="aff_2d" if enable_fusion else None,
    )
    text = transformers.ClapTextConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    return transformers.ClapConfig(
        audio_config=audio.to_dict(), text_config=text.to_dict(), projection_dim=12
    )


def clap_extractor(truncation="rand_trunc"):
    return transformers.ClapFeatureExtractor(
        feature_size=16, hop_length=480, max_length_s=1, truncation=truncation
    )


@family("clap")
def clap(folder, seed=0):
    model = lively_model(transformers.ClapModel, clap_config(), seed)
    return save(folder, model, clap_extractor())


@family("clap-fused")
def clap_fused(folder, seed=0):
    config = clap_config(enable_fusion=True)
    model = lively_model(transformers.ClapModel, config, seed)
    return save(folder, model, clap_extractor("fusion"))


@family("clap-audio")
def clap_audio(folder, seed=0):
    config = clap_config().audio_config
    model = lively_model(transformers.ClapAudioModelWithProjection, config, seed)
    return save(folder, model, clap_extractor())
