/*
 * tokenizer_train_unigram.c - Unigram: a large vocabulary of frequent substrings, thinned out by
 * expectation maximization, as SentencePiece and Hugging Face's tokenizers do it; see
 * tokenizer_train.h.
 *
 * Kudo, "Subword regularization" (2018). A round is two steps of EM, in which pieces expected less
 * than half a time go, and one of pruning: pieces are ordered by how much the likelihood loses when
 * each is replaced by the best way to write it with others, and a quarter goes. Rounds end at 1.1
 * times the size asked for; the best scores stay. Digamma in place of the logarithm is a sparse
 * prior. Pieces of one character always stay, so there is a way through every word.
 *
 * Differences: candidates may end a word (a suffix array over joined words misses those that always
 * do), and single characters are never expected less than half a time.
 *
 * Sums run over a fixed number of parts of the sorted words, whatever the number of threads. Sums of
 * products are long double: their exponents hold the longest word without logarithms at each step.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_train_parts.h"

#define PARTS 16          /* of the words */
#define SEEDS 1000000     /* pieces to begin with */
#define LONGEST_WORD (LATTICE_LONGEST / 4) /* characters; longer words are cut for training */
#define STEPS_OF_EM 2
#define SHRINK 0.75
#define RARE 0.5 /* expected occurrences below which a piece goes */

struct unigram_trainer {
    const struct vocabulary *v;
    /* Words: NUL-terminated, in order of their bytes. */
    char *text; /* owned */
    size_t text_n;
    uint32_t *at;    /* owned; (words) into text */
    int64_t *counts; /* owned; (words) */
    size_t words;
    int64_t total; /* sum of counts */

    struct train_piece *pieces; /* owned */
    size_t count, alive;
    struct piece_index index;
    double *values;      /* owned; (count) probabilities, or scores: what a run adds up */
    double *sums[PARTS]; /* owned; (count) expected or found occurrences */
    double *sum;         /* owned; (count) */
    double likelihood[PARTS];
};

/* ---- Words ---- */

/* Count a word's parts: cut where a character is not in the alphabet, and after so many. */
static enum status add_parts(const struct vocabulary *v, struct word_table *parts, const char *s,
                             size_t n, uint64_t count)
{
    size_t begin = 0;
    int characters = 0;
    for (size_t i = 0, length; i <= n; i += length) {
        uint32_t c;
        length = i == n ? 1 : (size_t)utf8_decode(s + i, n - i, &c);
        bool known = i < n && alphabet_find(v, c) >= 0;
        if (i > begin && (!known || characters == LONGEST_WORD)) {
            TRY(word_table_add(parts, s + begin, i - begin, count));
            begin = i;
            characters = 0;
        }
        characters++;
        if (!known) {
            begin = i + length;
            characters = 0;
        }
    }
    return STATUS_OK;
}

/* Offsets of parts in order of their bytes, and which parts they are. */
static void sort_parts(const struct word_table *parts, const char *text, const uint32_t *begin,
                              uint32_t *at)
{
    memcpy(at, begin, parts->count * sizeof *at);
    sort_strings(text, at, parts->count, 0);
    for (size_t i = 0; i < parts->count; i++) { /* begin ascends */
        size_t low = 0, high = parts->count;
        while (high - low > 1) {
            size_t mid = low + (high - low) / 2;
            *(begin[mid] <= at[i] ? &low : &high) = mid;
        }
        at[i] = (uint32_t)low;
    }
}

/* The words in order of their bytes, so that nothing depends on the order they were found in. */
static enum status sort_words(struct unigram_trainer *u, const struct word_table *parts)
{
    uint32_t *begin = NULL, *order = NULL;
    char *text = NULL;
    enum status st = STATUS_OK;
    u->words = parts->count;
    u->text_n = parts->text_n + parts->count;
    if (u->text_n > UINT32_MAX)
        return status_fail(STATUS_NOMEM, "distinct words have %zu bytes, at most %u fit",
                           u->text_n, UINT32_MAX);
    TRY(mem_alloc_raw(u->text_n, 1, "words", &u->text));
    TRY(mem_alloc_raw(parts->count, sizeof *u->at, "words", &u->at));
    TRY(mem_alloc_raw(parts->count, sizeof *u->counts, "words", &u->counts));
    TRY_GOTO(done, mem_alloc_raw(u->text_n, 1, "words", &text));
    TRY_GOTO(done, mem_alloc_raw(parts->count, sizeof *begin, "words", &begin));
    TRY_GOTO(done, mem_alloc_raw(parts->count, sizeof *order, "words", &order));
    uint32_t to = 0;
    for (size_t i = 0; i < parts->count; i++) {
        const struct train_word *w = &parts->words[i];
        begin[i] = to;
        memcpy(text + to, parts->text + w->at, w->n);
        text[to + w->n] = '\0';
        to += w->n + 1;
    }
    sort_parts(parts, text, begin, order);
    to = 0;
    for (size_t i = 0; i < parts->count; i++) {
        const struct train_word *w = &parts->words[order[i]];
        u->at[i] = to;
        u->counts[i] = (int64_t)w->count;
        u->total += u->counts[i];
        memcpy(u->text + to, text + begin[order[i]], w->n + 1);
        to += w->n + 1;
    }
done:
    mem_free(begin);
    mem_free(order);
    mem_free(text);
    return st;
}

static enum status take_words(struct unigram_trainer *u, struct word_table *table)
{
    struct word_table parts = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < table->count && st == STATUS_OK; i++)
        st = add_parts(u->v, &parts, table->text + table->words[i].at, table->words[i].n,
                       table->words[i].count);
    word_table_release(table);
    word_table_settle(&parts);
    if (st == STATUS_OK)
        st = sort_words(u, &parts);
    word_table_release(&parts);
    return st;
}

/* ---- Pieces ---- */

static const char *piece_text; /* of compare_texts(): qsort passes nothing on */
#pragma omp threadprivate(piece_text)

static int compare_texts(const void *a, const void *b)
{
    const struct train_piece *p = a, *q = b;
    int order = memcmp(piece_text + p->at, piece_text + q->at, p->n < q->n ? p->n : q->n);
    return order != 0 ? order : (p->n > q->n) - (p->n < q->n);
}

/* Put the pieces in the order of their texts, which is the index's and stays when some go. */
static void sort_pieces(struct unigram_trainer *u)
{
    piece_text = u->text;
    qsort(u->pieces, u->count, sizeof *u->pieces, compare_texts);
}

/* Leave out pieces that have gone, once they are so many that it pays. */
static enum status compact(struct unigram_trainer *u, bool always)
{
    size_t kept = 0;
    if (!always && u->alive * 4 > u->count * 3)
        return STATUS_OK;
    for (size_t i = 0; i < u->count; i++)
        if (u->pieces[i].alive)
            u->pieces[kept++] = u->pieces[i];
    u->count = kept;
    return piece_index_build(&u->index, u->text, u->pieces, u->count);
}

/* How often each letter occurs, and where. */
static enum status single_pieces(struct unigram_trainer *u, double *counts)
{
    const struct vocabulary *v = u->v;
    for (size_t w = 0; w < u->words; w++) {
        const char *s = u->text + u->at[w];
        for (uint32_t i = 0; s[i] != '\0';) {
            uint32_t c, n = (uint32_t)utf8_decode(s + i, strlen(s + i), &c);
            int64_t letter = alphabet_find(v, c);
            u->pieces[letter] = (struct train_piece){.at = u->at[w] + i, .n = n, .single = true};
            counts[letter] += (double)u->counts[w];
            i += n;
        }
    }
    size_t kept = 0;
    for (int64_t i = 0; i < v->letter_count; i++) {
        if (u->pieces[i].n == 0)
            continue;
        u->pieces[kept] = u->pieces[i];
        counts[kept++] = counts[i];
    }
    u->count = kept;
    return STATUS_OK;
}

static enum status first_pieces(struct unigram_trainer *u)
{
    const struct tokenizer_train_opts *opts = u->v->opts;
    struct seed *seeds = NULL;
    size_t seed_count = 0, room;
    double *counts = NULL, sum = 0;
    log_progress("looking for frequent substrings of %zu words", u->words);
    TRY(train_seeds(u->text, u->text_n, opts->max_piece, opts->min_frequency, SEEDS, &seeds,
                    &seed_count));
    room = (size_t)u->v->letter_count + seed_count;
    enum status st = mem_alloc(room, sizeof *u->pieces, "pieces", &u->pieces);
    if (st == STATUS_OK)
        st = mem_alloc(room, sizeof *counts, "pieces", &counts);
    if (st == STATUS_OK)
        st = single_pieces(u, counts);
    for (size_t i = 0; i < seed_count && st == STATUS_OK && u->count < SEEDS; i++) {
        if (trie_find(&u->v->ids, u->text + seeds[i].at, seeds[i].n) >= 0)
            continue; /* a special token */
        u->pieces[u->count] = (struct train_piece){.at = seeds[i].at, .n = seeds[i].n};
        counts[u->count++] = (double)seeds[i].score;
    }
    for (size_t i = 0; st == STATUS_OK && i < u->count; i++)
        sum += counts[i];
    for (size_t i = 0; st == STATUS_OK && i < u->count; i++) {
        u->pieces[i].alive = true;
        u->pieces[i].order = (uint32_t)i;
        u->pieces[i].score = log(counts[i]) - log(sum);
    }
    u->alive = u->count;
    mem_free(counts);
    mem_free(seeds);
    TRY(st);
    for (int i = 0; i < PARTS; i++)
        TRY(mem_alloc_raw(u->count, sizeof *u->sums[i], "expected counts", &u->sums[i]));
    TRY(mem_alloc_raw(u->count, sizeof *u->sum, "expected counts", &u->sum));
    TRY(mem_alloc_raw(u->count, sizeof *u->values, "values of pieces", &u->values));
    sort_pieces(u);
    return piece_index_build(&u->index, u->text, u->pieces, u->count);
}

/* ---- Running over the words ---- */

/* Run over the words of one part: expected occurrences, or those on the best ways. */
static enum status run_part(struct unigram_trainer *u, struct lattice *l, int part, bool best)
{
    const char *before = "";
    double *sums = u->sums[part];
    u->likelihood[part] = 0;
    memset(sums, 0, u->count * sizeof *sums);
    for (size_t w = u->words * (size_t)part / PARTS; w < u->words * ((size_t)part + 1) / PARTS;
         w++) {
        const char *s = u->text + u->at[w];
        double count = (double)u->counts[w];
        size_t n = 0;
        while (s[n] != '\0' && s[n] == before[n])
            n++;
        size_t same = n;
        n += strlen(s + n);
        TRY(lattice_read(l, &u->index, s, n, same, best ? NULL : sums, -1));
        before = s;
        if (!best)
            u->likelihood[part] += count * lattice_expect(l, n, count, sums);
        for (size_t end = best ? n : 0; end > 0;)
            sums[lattice_last(l, &end)] += count;
    }
    return STATUS_OK;
}

/* All parts into u->sum; *likelihood is that of the words (NULL: not wanted), best ways: of none. */
static enum status run(struct unigram_trainer *u, bool best, double *likelihood)
{
    enum status failed = STATUS_OK;
    for (size_t i = 0; i < u->count; i++)
        u->values[i] = !u->pieces[i].alive ? PIECE_GONE
                       : best              ? u->pieces[i].score
                                           : exp(u->pieces[i].score);
    piece_index_values(&u->index, u->values);
#pragma omp parallel for schedule(dynamic, 1)
    for (int part = 0; part < PARTS; part++) {
        struct lattice *l = NULL;
        enum status st = lattice_create(&l);
        if (st == STATUS_OK)
            st = run_part(u, l, part, best);
        lattice_free(l);
        if (st != STATUS_OK) {
#pragma omp critical
            failed = st;
        }
    }
    if (failed != STATUS_OK) /* the sentence is another thread's */
        return status_fail(failed, "no memory for the ways through words");
    for (size_t i = 0; i < u->count; i++) {
        u->sum[i] = 0;
        for (int part = 0; part < PARTS; part++)
            u->sum[i] += u->sums[part][i];
    }
    if (likelihood != NULL) {
        *likelihood = 0;
        for (int part = 0; part < PARTS; part++)
            *likelihood += u->likelihood[part];
    }
    return STATUS_OK;
}

/* ---- Expectation, maximization, pruning ---- */

/* The derivative of log gamma: an asymptotic series behind a recurrence. */
static double digamma(double x)
{
    double result = 0;
    for (; x < 7; x++)
        result -= 1 / x;
    x -= 0.5;
    double a = 1 / (x * x), b = a * a;
    return result + log(x) + a / 24 - b * 7 / 960 + b * a * 31 / 8064 - b * b * 127 / 30720;
}

static enum status maximize(struct unigram_trainer *u)
{
    double sum = 0;
    u->alive = 0;
    for (size_t i = 0; i < u->count; i++) {
        struct train_piece *p = &u->pieces[i];
        if (p->single && u->sum[i] < RARE)
            u->sum[i] = RARE;
        p->alive = p->alive && u->sum[i] >= RARE;
        sum += p->alive ? u->sum[i] : 0;
        u->alive += p->alive;
    }
    double log_sum = digamma(sum);
    for (size_t i = 0; i < u->count; i++)
        if (u->pieces[i].alive)
            u->pieces[i].score = digamma(u->sum[i]) - log_sum;
    return compact(u, false);
}

struct loss {
    double loss;
    uint32_t piece, order;
};

static int compare_losses(const void *a, const void *b)
{
    const struct loss *p = a, *q = b;
    if (p->loss != q->loss)
        return p->loss > q->loss ? -1 : 1;
    return (p->order > q->order) - (p->order < q->order); /* of seeds: by score and bytes */
}

/*
 * What the likelihood loses without a piece that the best ways use sum[i] times: they take the best
 * way to write it with others. *free_to_go: the best way to write it is not itself.
 */
static enum status loss_of(const struct unigram_trainer *u, struct lattice *l, size_t i,
                           double total, double *loss, bool *free_to_go)
{
    const struct train_piece *p = &u->pieces[i];
    const char *s = u->text + p->at;
    size_t parts = 0;
    TRY(lattice_read(l, &u->index, s, p->n, 0, NULL, (int32_t)i));
    *free_to_go = lattice_best(l, p->n) > p->score;
    for (size_t end = p->n; end > 0; parts++)
        (void)lattice_last(l, &end);
    double others = 0, log_total = log(total + u->sum[i] * (double)(parts - 1));
    for (size_t end = p->n; end > 0;)
        others += log(u->sum[lattice_last(l, &end)] + u->sum[i]) - log_total;
    *loss = u->sum[i] / (double)u->total * (log(u->sum[i]) - log(total) - others);
    return STATUS_OK;
}

static enum status prune(struct unigram_trainer *u, size_t wanted)
{
    struct loss *losses = NULL;
    struct lattice *l = NULL;
    size_t count = 0, kept = 0, size = (size_t)((double)u->alive * SHRINK);
    double total = 0;
    enum status st = STATUS_OK;
    if (size < wanted)
        size = wanted;
    TRY(run(u, true, NULL));
    for (size_t i = 0; i < u->count; i++)
        total += u->sum[i];
    TRY_GOTO(done, mem_alloc_raw(u->count, sizeof *losses, "losses of pieces", &losses));
    TRY_GOTO(done, lattice_create(&l));
    for (size_t i = 0; i < u->count; i++) {
        struct train_piece *p = &u->pieces[i];
        bool free_to_go = false;
        kept += p->single;
        if (p->single || !p->alive)
            continue;
        double loss = 0;
        if (u->sum[i] > 0)
            TRY_GOTO(done, loss_of(u, l, i, total, &loss, &free_to_go));
        if (u->sum[i] > 0 && !free_to_go)
            losses[count++] = (struct loss){loss, (uint32_t)i, p->order};
        else
            p->alive = false;
    }
    qsort(losses, count, sizeof *losses, compare_losses);
    for (size_t i = size > kept ? size - kept : 0; i < count; i++)
        u->pieces[losses[i].piece].alive = false;
    u->alive = 0;
    for (size_t i = 0; i < u->count; i++)
        u->alive += u->pieces[i].alive;
    st = compact(u, false);
done:
    lattice_free(l);
    mem_free(losses);
    return st;
}

static enum status thin_out(struct unigram_trainer *u, size_t room)
{
    size_t wanted = room * 11 / 10;
    for (;;) {
        double likelihood = 0;
        size_t before = u->alive;
        for (int i = 0; i < STEPS_OF_EM; i++) {
            TRY(run(u, false, &likelihood));
            TRY(maximize(u));
            log_progress("unigram: %zu pieces, log likelihood %.6g a word", u->alive,
                         likelihood / (double)u->total);
        }
        if (u->alive <= wanted)
            break;
        TRY(prune(u, wanted));
        if (u->alive >= before)
            break;
    }
    log_progress("%s", "");
    return STATUS_OK;
}

/* ---- The end ---- */

static int compare_pieces(const void *a, const void *b)
{
    const struct train_piece *p = a, *q = b;
    if (p->score != q->score)
        return p->score > q->score ? -1 : 1;
    return (p->order > q->order) - (p->order < q->order);
}

/* The pieces that stay, by score, into the vocabulary. */
static enum status choose(struct unigram_trainer *u, struct vocabulary *v, size_t room)
{
    size_t singles = 0;
    TRY(compact(u, true));
    qsort(u->pieces, u->count, sizeof *u->pieces, compare_pieces);
    for (size_t i = 0; i < u->count; i++)
        singles += u->pieces[i].single;
    for (size_t i = 0, others = 0; i < u->count; i++)
        if (!u->pieces[i].single)
            u->pieces[i].alive = others++ < room - singles;
    TRY(mem_alloc(v->count + u->count, sizeof *v->scores, "scores of pieces", &v->scores));
    for (size_t i = 0; i < u->count; i++) {
        int32_t id;
        if (!u->pieces[i].alive)
            continue;
        TRY(vocabulary_add(v, u->text + u->pieces[i].at, u->pieces[i].n, &id));
        if (id >= v->specials)
            v->scores[id] = u->pieces[i].score;
    }
    sort_pieces(u);
    return compact(u, true);
}

enum status train_unigram(struct vocabulary *v, struct word_table *table,
                          struct tokenizer_train_report *report)
{
    struct unigram_trainer u = {.v = v};
    int64_t room = v->opts->vocab_size - v->specials;
    enum status st = STATUS_OK;
    if (v->letter_count > room)
        return status_fail(STATUS_CONFIG,
                           "tokenizer.vocab_size is %lld, but the special tokens and the pieces of "
                           "one character are %lld: raise it, or set tokenizer.limit_alphabet",
                           (long long)v->opts->vocab_size,
                           (long long)(v->letter_count + v->specials));
    TRY_GOTO(done, take_words(&u, table));
    TRY_GOTO(done, first_pieces(&u));
    TRY_GOTO(done, thin_out(&u, (size_t)room));
    TRY_GOTO(done, choose(&u, v, (size_t)room));
    TRY_GOTO(done, run(&u, true, NULL));
    for (size_t i = 0; i < u.count; i++)
        report->pieces_a_word += u.sum[i] / (double)u.total;
done:
    for (int i = 0; i < PARTS; i++)
        mem_free(u.sums[i]);
    mem_free(u.sum);
    mem_free(u.values);
    piece_index_release(&u.index);
    mem_free(u.pieces);
    mem_free(u.text);
    mem_free(u.at);
    mem_free(u.counts);
    return st;
}
