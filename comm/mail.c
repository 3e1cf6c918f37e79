/*
 * mail.c - short messages between ranks, outside of collectives.
 *
 * A communicator of its own keeps them apart from everything else. A message is copied into a slot
 * and sent without waiting; slots are kept and used again when MPI is done with them.
 */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/internal.h"

#define MAIL_TAG 1
#define IDLE_US 1000

struct slot {
    MPI_Request request; /* MPI_REQUEST_NULL: free */
    char bytes[COMM_MAIL_BYTES];
};

struct comm_mail {
    MPI_Comm mpi; /* MPI_COMM_NULL: one rank, no mail */
    int rank, size;
    struct slot **slot; /* (slots); each its own allocation, since MPI reads from it */
    size_t slots, capacity;
};

enum status comm_mail_open(struct comm *comm, struct comm_mail **out)
{
    struct comm_mail *mail = NULL;
    enum status st;
    *out = NULL;
    TRY(comm_agree(comm, mem_alloc(1, sizeof *mail, "mail", &mail)));
    mail->mpi = MPI_COMM_NULL;
    mail->rank = comm->rank;
    mail->size = comm->size;
    if (comm->size > 1) {
        collective_begins();
        TRY_GOTO(fail, mpi_status(MPI_Comm_dup(comm->mpi, &mail->mpi), "MPI_Comm_dup"));
        TRY_GOTO(fail, mpi_status(MPI_Comm_set_errhandler(mail->mpi, MPI_ERRORS_RETURN),
                                  "MPI_Comm_set_errhandler"));
    }
    *out = mail;
    return STATUS_OK;
fail:
    mem_free(mail);
    return st;
}

void comm_mail_close(struct comm_mail *mail)
{
    if (mail == NULL)
        return;
    bool sent = true;
    for (size_t i = 0; i < mail->slots; i++) {
        int done = comm_broken() ? 0 : 1;
        if (done && mail->slot[i]->request != MPI_REQUEST_NULL &&
            mpi_status(MPI_Wait(&mail->slot[i]->request, MPI_STATUS_IGNORE), "MPI_Wait") !=
                STATUS_OK)
            done = 0;
        if (done)
            mem_free(mail->slot[i]); /* else MPI may still read it: the process's end frees it */
        sent = sent && done;
    }
    mem_free(mail->slot);
    if (mail->mpi != MPI_COMM_NULL && sent && !comm_broken() &&
        mpi_status(MPI_Comm_free(&mail->mpi), "MPI_Comm_free") != STATUS_OK)
        log_warning("%s", status_message());
    mem_free(mail);
}

/* A slot that MPI does not read from. */
static enum status free_slot(struct comm_mail *mail, struct slot **out)
{
    for (size_t i = 0; i < mail->slots; i++) {
        int done = 1;
        if (mail->slot[i]->request != MPI_REQUEST_NULL)
            TRY(mpi_status(MPI_Test(&mail->slot[i]->request, &done, MPI_STATUS_IGNORE),
                           "MPI_Test"));
        if (done) {
            *out = mail->slot[i];
            return STATUS_OK;
        }
    }
    TRY(mem_grow(&mail->slot, &mail->capacity, mail->slots + 1, sizeof(struct slot *), "mail"));
    TRY(mem_alloc(1, sizeof **out, "mail", out));
    (*out)->request = MPI_REQUEST_NULL;
    mail->slot[mail->slots++] = *out;
    return STATUS_OK;
}

enum status comm_mail_send(struct comm_mail *mail, int to, const void *bytes, int n)
{
    struct slot *slot;
    if (to < 0 || to >= mail->size || to == mail->rank || n < 0 || n > COMM_MAIL_BYTES)
        return status_fail(STATUS_ARG, "mail of %d bytes from rank %d to rank %d of %d", n,
                           mail->rank, to, mail->size);
    TRY(free_slot(mail, &slot));
    memcpy(slot->bytes, bytes, (size_t)n);
    return mpi_status(MPI_Isend(slot->bytes, n, MPI_BYTE, to, MAIL_TAG, mail->mpi, &slot->request),
                      "MPI_Isend");
}

enum status comm_mail_receive(struct comm_mail *mail, int *from, void *bytes, int *n)
{
    MPI_Status status;
    int there = 0;
    *from = -1;
    *n = 0;
    if (mail->mpi == MPI_COMM_NULL)
        return STATUS_OK;
    TRY(mpi_status(MPI_Iprobe(MPI_ANY_SOURCE, MAIL_TAG, mail->mpi, &there, &status), "MPI_Iprobe"));
    if (!there)
        return STATUS_OK;
    TRY(mpi_status(
        MPI_Recv(bytes, COMM_MAIL_BYTES, MPI_BYTE, status.MPI_SOURCE, MAIL_TAG, mail->mpi, &status),
        "MPI_Recv"));
    TRY(mpi_status(MPI_Get_count(&status, MPI_BYTE, n), "MPI_Get_count"));
    *from = status.MPI_SOURCE;
    return STATUS_OK;
}

void comm_idle(const char *phase)
{
    comm_mark(-1, phase);
    (void)usleep(IDLE_US); /* between two looks at a condition that others bring about */
}
