"""After any series of changes both sides of every relation agree."""

from hypothesis import given
from hypothesis import strategies as st

from gespann.pool.model.database import Database
from gespann.pool.model.relations import followers, leaders
from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.datamodel import NULL_REF

# three classes around VM, one of it to itself, and the many-to-many between hosts and updates
CLASSES = ("VM", "VBD", "VDI", "host", "pool_update", "console")
FIELDS = (("VBD", "VM"), ("VBD", "VDI"), ("VDI", "snapshot_of"), ("VM", "resident_on"), ("console", "VM"))
NUMBER = st.integers(0, 3)

change = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(CLASSES), NUMBER),
    st.tuples(st.just("destroy"), st.sampled_from(CLASSES), NUMBER),
    st.tuples(st.just("point"), st.sampled_from(FIELDS), NUMBER, NUMBER),
    st.tuples(st.just("unpoint"), st.sampled_from(FIELDS), NUMBER),
    st.tuples(st.just("updates"), NUMBER, st.sets(NUMBER)),
)


def ref(class_name: str, number: int) -> str:
    return f"OpaqueRef:{class_name}-{number}"


def apply(tx, step) -> None:
    match step:
        case ("create", class_name, number):
            if not tx.exists(class_name, ref(class_name, number)):
                tx.create(class_name, {}, ref=ref(class_name, number))
        case ("destroy", class_name, number):
            tx.destroy(class_name, ref(class_name, number))
        case ("point", (class_name, field), number, target):
            target_ref = ref(datamodel.classes()[class_name].fields[field].type.name, target)
            target_class = datamodel.classes()[class_name].fields[field].type.name
            if tx.exists(class_name, ref(class_name, number)) and tx.exists(target_class, target_ref):
                tx.set(class_name, ref(class_name, number), **{field: target_ref})
        case ("unpoint", (class_name, field), number):
            if tx.exists(class_name, ref(class_name, number)):
                tx.set(class_name, ref(class_name, number), **{field: NULL_REF})
        case ("updates", number, targets):
            refs = [ref("pool_update", target) for target in sorted(targets)]
            if tx.exists("host", ref("host", number)):
                tx.set("host", ref("host", number), updates=[r for r in refs if tx.exists("pool_update", r)])


def check_both_sides(db: Database) -> None:
    for class_name, fields in followers().items():
        for field, sides in fields.items():
            for many_class, many_field in sides:
                pairs = set()
                for one, record in db.all(class_name).items():
                    targets = record[field] if isinstance(record[field], list) else [record[field]]
                    pairs |= {(one, target) for target in targets if db.find(many_class, target) is not None}
                seen = [(one, many) for many, record in db.all(many_class).items() for one in record[many_field]]
                assert len(seen) == len(set(seen))
                assert set(seen) == pairs, (class_name, field)


@given(st.lists(st.lists(change, max_size=6), max_size=10))
def test_both_sides_agree_after_any_transactions(transactions):
    db = Database(None)
    for steps in transactions:
        with db.transaction() as tx:
            for step in steps:
                apply(tx, step)
        check_both_sides(db)
    db.close()


def test_every_relation_is_kept_from_a_published_field():
    for class_name, fields in leaders().items():
        for field, (one_class, one_field) in fields.items():
            assert field in datamodel.classes()[class_name].fields
            assert one_field in datamodel.classes()[one_class].fields
