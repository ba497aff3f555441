"""The protobuf messages and services that Windlass speaks, in folders that follow the proto packages."""
