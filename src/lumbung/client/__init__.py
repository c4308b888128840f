"""A small client of the partner API: signs and sends. Needs nothing but the standard library.

client = PartnerClient("http://127.0.0.1:8080", "B98KL87", secret)
client.update_stocks({"sku": "sku1", "warehouse": "default", ...}).json["transaction_code"]
"""

from lumbung.client.partner import Answer, PartnerClient, sign

__all__ = ["Answer", "PartnerClient", "sign"]
