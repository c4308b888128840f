"""What Bukalapak is like: hosts, limits, and the fields of the credentials files.

Source: marketplaces.md section 5. Its marketplace for physical goods closed in February 2025 [M]; the connector is kept
for history and for merchants with a gateway of the same shape on their own machine. Neither the rate limit nor how long
a lost call can still take effect was ever published: `pacing`, `application_pacing`, `in_flight_max` and
`quiesce_seconds` are careful guesses [M]; a store may set its own.
"""

from __future__ import annotations

from lumbung.channels.base import CredentialField, Manifest, Pacing

BASE_URL = "https://api.bukalapak.com"
ACCOUNTS_URL = "https://accounts.bukalapak.com"
SCOPE = "public user store"

MANIFEST = Manifest(
    code="bklp",
    name="Bukalapak",
    hosts=("api.bukalapak.com", "accounts.bukalapak.com"),  # [C]
    batch_max=1,  # the route takes one SKU a call [C]
    batch_of="one SKU of a product",
    in_flight_max=4,  # [M]
    read_max=50,  # [M] all SKUs of a product stand in its answer; no product is known to have more
    pacing=Pacing(calls_per_second=2.0, burst=2),  # [M]
    application_pacing=Pacing(calls_per_second=10.0, burst=10),  # [M]
    credentials=(
        CredentialField("client_id", "the application's client id", application=True, identifies=True),
        CredentialField("client_secret", "the application's client secret", secret=True, application=True),
        CredentialField("user_agent", "the User-Agent that is registered for the application", application=True),
        CredentialField(
            "scope",
            f"what merchants are asked to allow, with spaces between; {SCOPE}",
            required=False,
            application=True,
        ),
        CredentialField("base_url", f"the address of the API; {BASE_URL}", required=False, application=True),
        CredentialField("accounts_url", f"the address of the login; {ACCOUNTS_URL}", required=False, application=True),
        CredentialField("shop_id", "the store's id"),
        CredentialField(
            "send_state",
            'yes: an update above 0 also says "state": "active", which puts up a product that was taken down; no',
            required=False,
        ),
        CredentialField("call_timeout_seconds", "how long to wait for an answer; 20, and at most 20", required=False),
        CredentialField("quiesce_seconds", "how long a lost call may still take effect; 60", required=False),
        CredentialField("calls_per_second", "the rate limit of this store; 2", required=False),
    ),
    call_timeout_seconds=20.0,
    quiesce_seconds=60.0,  # [M] an unanswered call is assumed to be over a minute later
    reads_back=True,
    quantity_means="sellable",  # [M] as on Bukalapak's product page: what can still be ordered
    closed=True,
    authorizes=True,
)
