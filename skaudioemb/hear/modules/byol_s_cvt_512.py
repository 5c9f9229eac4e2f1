"""byol_s_cvt_512 by HEAR's common API."""

from skaudioemb.hear.api import functions_of

load_model, get_timestamp_embeddings, get_scene_embeddings = functions_of(
    "byol_s_cvt_512"
)
