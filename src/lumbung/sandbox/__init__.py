"""Fake marketplaces over real HTTP: they check credentials and signatures, refuse in the marketplace's own words,
misbehave on request, and write down every write that took effect.

    tally.py        a count that can be waited for
    log.py          a numbered, bounded list of entries
    entries.py      what is written down: calls, writes, sales
    json_lines.py   a log as a file
    ledger.py       the truth: stores, listings, and the logs
    bucket.py       a token bucket
    limits.py       limits of single stores and of applications
    clock.py        the marketplaces' clock, which can be moved
    faults.py       how a channel misbehaves
    gate.py         holds calls, so that a test can act while they are in flight
    traffic.py      calls in flight
    call.py         one call, and what a marketplace makes of it
    marketplace.py  what every fake marketplace offers
    blibli.py       Blibli
    bukalapak.py    Bukalapak
    shopee/         Shopee
    front.py        the way of one call: received, delayed, judged, applied, answered, written down
    shape.py        JSON bodies of the control API, read strictly
    control.py      the control API
    server.py       starts and stops all of it

Nothing here is shared with the channels: one misreading of a marketplace must not hide in both.
"""
