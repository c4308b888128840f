from __future__ import annotations

import pytest

from .conftest import Operator


def test_a_tenant_is_made_with_its_default_warehouse(operator: Operator) -> None:
    assert operator.done("tenant", "add", "Toko") == "Tenant 'Toko' added (id 1)\n"

    [tenant] = operator.json("tenant", "list")
    assert tenant.pop("created_at").endswith("Z")
    assert tenant == {
        "id": 1,
        "name": "Toko",
        "unknown_sku": "reject",
        "channel_stock_limit": "none",
        "item_deadline_seconds": 3600,
        "disabled_at": None,
        "partners": 0,
        "stores": 0,
        "variants": 0,
    }
    detail = {"name": "Toko", "unknown_sku": "reject", "channel_stock_limit": "none"}
    assert operator.audit() == [("tenant.add", "tenant:1", detail)]
    [warehouse] = operator.json("warehouse", "list")
    assert warehouse.pop("created_at").endswith("Z")
    assert warehouse == {"tenant_id": 1, "tenant": "Toko", "id": 0, "name": "default", "retired_at": None}


def test_a_tenant_says_how_doubtful_requests_are_treated(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko", "--unknown-sku", "create", "--channel-stock-limit", "total")

    [tenant] = operator.json("tenant", "list")
    assert (tenant["unknown_sku"], tenant["channel_stock_limit"]) == ("create", "total")


def test_a_name_is_used_once(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")

    assert operator.refused("tenant", "add", "Toko") == "lumbung: There is a tenant 'Toko' already\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must have 1 to 255 characters"),
        ("x" * 256, "must have 1 to 255 characters"),
        ("a\tb", "must not hold control characters"),
        (" Toko", "must not begin or end with a space"),
    ],
)
def test_a_name_that_nobody_could_read_is_refused(operator: Operator, name: str, problem: str) -> None:
    assert operator.refused("tenant", "add", name) == f"lumbung: The tenant's name {problem}\n"


def test_a_value_that_is_not_offered_is_a_usage_error(operator: Operator) -> None:
    result = operator("tenant", "add", "Toko", "--unknown-sku", "guess")

    assert result.exit == 2
    assert "'guess' is not one of 'reject', 'create'" in result.err
    assert operator.rows("SELECT * FROM tenant") == []


def test_tables_are_for_people(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")

    table = operator.done("tenant", "list").splitlines()

    assert table[1].split() == [
        *("ID", "NAME", "UNKNOWN", "SKU", "CHANNEL", "STOCK", "LIMIT", "ITEM", "DEADLINE", "(S)"),
        *("PARTNERS", "STORES", "VARIANTS", "DISABLED"),
    ]
    assert table[3].split() == ["1", "Toko", "reject", "none", "3600", "0", "0", "0", "-"]


def test_the_tenant_may_be_left_out_only_when_there_is_one(operator: Operator) -> None:
    none = "lumbung: There is no tenant yet: make one with `lumbung tenant add NAME`\n"
    assert operator.refused("partner", "add") == none
    operator.done("tenant", "add", "Toko")
    operator.done("tenant", "add", "Kios")
    many = "lumbung: There are 2 tenants; say which with --tenant: 'Toko', 'Kios'\n"
    assert operator.refused("partner", "add") == many
    unknown = "lumbung: There is no tenant 'Warung'; `lumbung tenant list` shows them\n"
    assert operator.refused("partner", "add", "--tenant", "Warung") == unknown

    operator.done("warehouse", "add", "bandung", "--tenant", "Kios")
    operator.done("warehouse", "add", "medan", "--tenant", "1")

    names = [(row["tenant"], row["name"]) for row in operator.json("warehouse", "list")]
    assert names == [("Toko", "default"), ("Toko", "medan"), ("Kios", "default"), ("Kios", "bandung")]
    assert [row["name"] for row in operator.json("warehouse", "list", "--tenant", "Kios")] == ["default", "bandung"]


def test_a_warehouse_is_added_once(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    assert operator.done("warehouse", "add", "bandung") == "Warehouse 'bandung' added (id 1)\n"
    assert operator.audit()[1:] == [("warehouse.add", "warehouse:1", {"name": "bandung"})]

    assert operator.refused("warehouse", "add", "bandung") == "lumbung: There is a warehouse 'bandung' already\n"
    assert operator.refused("warehouse", "add", "default") == "lumbung: There is a warehouse 'default' already\n"
    wrong = operator.refused("warehouse", "add", "a\nb")
    assert wrong == "lumbung: The warehouse's name must not hold control characters\n"


def test_how_long_items_may_take_is_set(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")

    said = operator.done("tenant", "set", "Toko", "--item-deadline", "900")

    assert said == "Items of tenant 'Toko' end as failed when they are not delivered within 900 s\n"
    assert [tenant["item_deadline_seconds"] for tenant in operator.json("tenant", "list")] == [900]
    assert operator.audit()[-1] == ("tenant.set", "tenant:1", {"item_deadline_seconds": 900, "before": 3600})
    missing = "lumbung: There is no tenant 'Nobody'; `lumbung tenant list` shows them\n"
    assert operator.refused("tenant", "set", "Nobody", "--item-deadline", "900") == missing


def test_a_deadline_of_nothing_is_a_usage_error(operator: Operator) -> None:
    assert operator("tenant", "set", "Toko", "--item-deadline", "0").exit == 2
