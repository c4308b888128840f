"""What Shopee is like: hosts, limits, and the fields of a store's and of its application's credentials file.

Source: marketplaces.md section 1. Shopee publishes no rate limits (`[0,0,0]` on every page of its documentation), nor
how long a lost call can still take effect, so the two pacings, `in_flight_max` and `quiesce_seconds` are careful
guesses [I]; a store may set its own.
"""

from __future__ import annotations

from lumbung.channels.base import CredentialField, Manifest, Pacing

BASE_URL = "https://partner.shopeemobile.com"

MANIFEST = Manifest(
    code="shpe",
    name="Shopee",
    hosts=(
        # Production [D]: Singapore, the Americas, China.
        "partner.shopeemobile.com",
        "openplatform.shopee.com.br",
        "openplatform.shopee.cn",
        # Shopee's own sandboxes [D]: two that guides name, one that the API pages print, one of old samples.
        "openplatform.sandbox.test-stable.shopee.sg",
        "openplatform.sandbox.test-stable.shopee.cn",
        "partner.test-stable.shopeemobile.com",
        "partner.uat.shopeemobile.com",
    ),
    batch_max=50,  # entries of one stock_list [D]
    batch_of="one item's variations",
    in_flight_max=10,  # [I]
    read_max=50,  # ids of one get_item_base_info [D]
    pacing=Pacing(calls_per_second=3.0, burst=3),  # [I]
    application_pacing=Pacing(calls_per_second=10.0, burst=10),  # [I]
    credentials=(
        CredentialField("partner_id", "the app's partner_id, digits only", application=True, identifies=True),
        CredentialField("partner_key", "the app's partner key", secret=True, application=True),
        CredentialField("base_url", f"the address of the API; {BASE_URL}", required=False, application=True),
        CredentialField("shop_id", "the store's shop_id, digits only"),
        CredentialField("call_timeout_seconds", "how long to wait for an answer; 20, and at most 20", required=False),
        CredentialField("quiesce_seconds", "how long a lost call may still take effect; 60", required=False),
        CredentialField("calls_per_second", "the rate limit of this store; 3", required=False),
    ),
    call_timeout_seconds=20.0,
    quiesce_seconds=60.0,  # [I] an unanswered call is assumed to be over a minute later
    reads_back=True,
    quantity_means="sellable",  # Shopee takes ordered units off the seller's stock itself [D]
    location_aware=True,
    authorizes=True,
)
