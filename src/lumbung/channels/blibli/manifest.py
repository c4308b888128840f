"""What Blibli is like: hosts, limits, and the fields of a store's credentials file.

Source: marketplaces.md section 4. Blibli publishes neither its rate limit nor how long a lost call can still take
effect, so `pacing`, `in_flight_max` and `quiesce_seconds` are careful guesses [M]; a store may set its own.
"""

from __future__ import annotations

from lumbung.channels.base import CredentialField, Manifest, Pacing

BASE_URL = "https://api.blibli.com/v2"
BLIBLI_STORE_ID = "10001"
CHANNEL_ID = "lumbung"
PICKUP_POINT_PARAMETER = "pickupPointCode"

MANIFEST = Manifest(
    code="blib",
    name="Blibli",
    hosts=("api.blibli.com", "api-uata.gdn-app.com"),  # production and user acceptance test [C]
    batch_max=1,  # the current route takes one SKU a call [C]
    batch_of="one Blibli SKU",
    in_flight_max=4,  # [M]
    read_max=1,
    pacing=Pacing(calls_per_second=2.0, burst=2),  # [M] 429 has been seen, its threshold is unknown
    credentials=(
        CredentialField("api_client_id", "the API client's id, from the Blibli seller centre"),
        CredentialField("api_client_key", "the API client's key", secret=True),
        CredentialField("api_seller_key", "the seller's API key", secret=True),
        CredentialField("signature_key", "the signature key, when one was issued", secret=True, required=False),
        CredentialField("username", "the seller centre's user, usually an e-mail address"),
        CredentialField("store_code", "the merchant code, such as TOQ-15126"),
        CredentialField("channel_id", f"the name by which Blibli knows us; {CHANNEL_ID}", required=False),
        CredentialField("blibli_store_id", f"storeId of every call; {BLIBLI_STORE_ID}", required=False),
        CredentialField("base_url", f"the address of the API; {BASE_URL}", required=False),
        CredentialField(
            "signature_path_prefix",
            "what the signed path begins with: nothing, or /seller-api/api as in some releases of Blibli's own client",
            required=False,
        ),
        CredentialField(
            "pickup_point_parameter",
            f"the query parameter that names a listing's pickup point; {PICKUP_POINT_PARAMETER}",
            required=False,
        ),
        CredentialField("call_timeout_seconds", "how long to wait for an answer; 20, and at most 20", required=False),
        CredentialField("quiesce_seconds", "how long a lost call may still take effect; 60", required=False),
        CredentialField("calls_per_second", "the rate limit of this store; 2", required=False),
    ),
    call_timeout_seconds=20.0,
    quiesce_seconds=60.0,  # [M] an unanswered call is assumed to be over a minute later
    reads_back=True,
    quantity_means="sellable",  # Blibli takes ordered units off availableStock itself [C]
)
