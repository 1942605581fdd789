"""Labels: what people say of samples."""

from collections.abc import Iterator, Sequence

from lineside.v1 import label_pb2, label_service_pb2, label_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.label_files import Entry, Fault, LabelFile, LabelFileError
from controlplane.client.names import model_name, sample_name
from controlplane.client.pages import iterate


class Labels:
    """Calls of LabelService. Models and samples are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = label_service_pb2_grpc.LabelServiceStub(connection.api)

    def add(
        self, model: str, entries: Sequence[Entry], *, source: str = "", dry_run: bool = False
    ) -> label_service_pb2.ImportLabelsResponse:
        """Add labels, all or none; what is wrong is in the answer's errors."""
        request = label_service_pb2.ImportLabelsRequest(
            model=model_name(model), entries=entries, source=source, dry_run=dry_run
        )
        # Said twice, a label is said once: it may be repeated.
        return self._connection.call(self._stub.ImportLabels, request)

    def import_file(
        self, model: str, file: LabelFile, *, dry_run: bool = False
    ) -> label_service_pb2.ImportLabelsResponse:
        """Add the labels of a file. Raises LabelFileError, with the place of each fault, where nothing was added."""
        outcome = self.add(model, file.entries, source=file.path.name, dry_run=dry_run)
        if outcome.errors:
            faults = [
                Fault(place=file.place_of(error.line), message=f"{error.field}: {error.message}", remedy=error.remedy)
                for error in outcome.errors
            ]
            raise LabelFileError(str(file.path), faults)
        return outcome

    def list(
        self, *, model: str = "", sample: str = "", annotator: str = "", limit: int | None = None
    ) -> Iterator[label_pb2.Label]:
        """Yield labels, newest first."""

        def fetch(size: int, token: str) -> tuple[list[label_pb2.Label], str]:
            request = label_service_pb2.ListLabelsRequest(
                model=model_name(model) if model else "",
                sample=sample_name(sample) if sample else "",
                annotator=annotator,
                page_size=size,
                page_token=token,
            )
            page = self._connection.call(self._stub.ListLabels, request)
            return [*page.labels], page.next_page_token

        return iterate(fetch, limit=limit)

    def consensus(
        self,
        model: str,
        *,
        state: label_pb2.Consensus.State.ValueType = label_pb2.Consensus.STATE_UNSPECIFIED,
        limit: int | None = None,
    ) -> Iterator[label_pb2.Consensus]:
        """Yield what annotators say together of each sample that has labels, by sample."""

        def fetch(size: int, token: str) -> tuple[list[label_pb2.Consensus], str]:
            request = label_service_pb2.ListConsensusRequest(
                model=model_name(model), state=state, page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListConsensus, request)
            return [*page.consensus], page.next_page_token

        return iterate(fetch, limit=limit)
