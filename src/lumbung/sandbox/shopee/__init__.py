"""The fake Shopee: Open Platform v2, as far as stock goes.

    wire.py           the signature, the envelope, what a path is
    tokens.py         access and refresh tokens, and one-time codes, of one shop
    shop.py           a shop as the control API sets it up, and its items
    door.py           who may call: parameters, timestamp, signature, token
    authorization.py  the seller agrees; codes and refresh tokens are traded
    stock.py          update_stock
    reading.py        what a shop, its items, models and warehouses show
    marketplace.py    all of it as one marketplace

Source: fact sheet, section 1 [D: documented, C: seen in client code]; what is made up here is marked [I].
"""
