"""encodecmae_ec_ec_base_st by HEAR's common API."""

from skaudioemb.hear.api import functions_of

load_model, get_timestamp_embeddings, get_scene_embeddings = functions_of(
    "encodecmae_ec_ec_base_st"
)
