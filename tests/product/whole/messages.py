"""The messages at which something may be struck: those that change something, and so come in a certain order."""

#: of seam 4
ENGINE_OPS = frozenset(
    {"volume.create", "volume.delete", "volume.resize", "volume.clone", "volume.thick"}
    | {"volume.snapshot", "volume.rollback", "volume.limit", "volume.drain"}
    | {"target.put", "target.remove", "chap.put", "chap.remove", "chap.mutual", "session.drop"}
    | {"configure", "space.limit", "space.pools"}
)
#: of seam 4 too, asked at any time
ENGINE_QUESTIONS = frozenset(
    {"hello", "space", "session.list", "volume.list", "volume.diff", "volume.usage", "volume.added"}
)
#: of seam 5, sent by the operations of ``life`` and ``trials``
AGENT_OPS = frozenset(
    {"domain.create", "domain.shutdown", "domain.destroy", "domain.pause", "domain.unpause", "bridge.ensure"}
    | {"memory.save", "memory.stop", "domain.restore", "image.open", "image.close"}
    | {"disk.attach", "disk.detach", "disk.resize", "disk.mirror", "disk.mirror_stop", "disk.pivot"}
    | {"migrate.receive", "migrate.send", "migrate.end"}
)
