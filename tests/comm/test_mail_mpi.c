/* test_mail_mpi.c - messages outside of collectives; on every number of ranks from 1 to 4. */
#include <string.h>

#include "tests/comm/mpi_main.h"

enum { MESSAGES = 200 };

struct letter {
    int rank, number;
    char rest[1000];
};

static int size_of(int number)
{
    return (int)(2 * sizeof(int)) + number * 5 % 1000;
}

/* Rank 0 works on collectives of another communicator and looks at its mail in between. */
static void test_all_mail_arrives_in_order_beside_collectives(void **state)
{
    (void)state;
    struct comm_mail *mail;
    struct letter letter;
    int next[8] = {0}, seen = 0, from, n;
    assert_ok(comm_mail_open(world, &mail));
    for (int i = 0; i < MESSAGES; i++) {
        if (rank != 0) {
            letter = (struct letter){.rank = rank, .number = i};
            memset(letter.rest, 'a' + i % 26, sizeof letter.rest);
            assert_ok(comm_mail_send(mail, 0, &letter, size_of(i)));
        }
        assert_ok(comm_agree(world, STATUS_OK));
    }
    while (rank == 0 && seen < (ranks - 1) * MESSAGES) {
        assert_ok(comm_mail_receive(mail, &from, &letter, &n));
        if (from < 0) {
            comm_idle("waiting");
            continue;
        }
        assert_int_equal(letter.rank, from);
        assert_int_equal(letter.number, next[from]);
        assert_int_equal(n, size_of(next[from]));
        for (int i = 0; i < n - (int)(2 * sizeof(int)); i++)
            assert_int_equal(letter.rest[i], 'a' + next[from] % 26);
        next[from]++;
        seen++;
    }
    assert_ok(comm_mail_receive(mail, &from, &letter, &n));
    assert_int_equal(from, -1);
    comm_mail_close(mail);
}

/* Question and answer while the asked rank trains: it looks whenever it marks. */
struct server {
    struct comm_mail *mail;
    int answered, depth;
};

static void serve(void *arg)
{
    struct server *server = arg;
    char bytes[COMM_MAIL_BYTES];
    int from, n;
    assert_int_equal(server->depth++, 0);
    comm_mark(-1, "inside"); /* does not come here again */
    assert_ok(comm_mail_receive(server->mail, &from, bytes, &n));
    if (from >= 0) {
        assert_int_equal(n, 1);
        bytes[0]++;
        assert_ok(comm_mail_send(server->mail, from, bytes, 1));
        server->answered++;
    }
    server->depth--;
}

static void test_mail_is_answered_while_rank_0_works(void **state)
{
    (void)state;
    struct server server = {0};
    char bytes[COMM_MAIL_BYTES] = {(char)rank};
    int from = -1, n;
    assert_ok(comm_mail_open(world, &server.mail));
    if (rank == 0) {
        comm_on_mark(serve, &server);
        while (server.answered < ranks - 1)
            comm_mark(-1, "work");
        comm_on_mark(NULL, NULL);
    } else {
        assert_ok(comm_mail_send(server.mail, 0, bytes, 1));
        while (from < 0) {
            assert_ok(comm_mail_receive(server.mail, &from, bytes, &n));
            comm_idle("waiting");
        }
        assert_int_equal(from, 0);
        assert_int_equal(bytes[0], rank + 1);
    }
    comm_mark(-1, "done"); /* looks no more */
    comm_mail_close(server.mail);
}

static void test_wrong_addresses_are_refused(void **state)
{
    (void)state;
    struct comm_mail *mail;
    char bytes[1] = {0};
    assert_ok(comm_mail_open(world, &mail));
    assert_fails(comm_mail_send(mail, rank, bytes, 1), STATUS_ARG, "mail of 1 bytes");
    assert_fails(comm_mail_send(mail, ranks, bytes, 1), STATUS_ARG, "mail");
    assert_fails(comm_mail_send(mail, (rank + 1) % ranks, bytes, COMM_MAIL_BYTES + 1), STATUS_ARG, "mail of 1025");
    comm_mail_close(mail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MPI_TEST(test_all_mail_arrives_in_order_beside_collectives),
        MPI_TEST(test_mail_is_answered_while_rank_0_works),
        MPI_TEST(test_wrong_addresses_are_refused),
    };
    RUN_MPI_TESTS(tests);
}
