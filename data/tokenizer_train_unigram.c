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
#define LONGEST_WORD 400  /* characters; longer words are cut for training */
#define STEPS_OF_EM 2
#define SHRINK 0.75
#define RARE 0.5 /* expected occurrences below which a piece goes */

struct piece {
    uint32_t at, n;     /* its text */
    uint32_t order;     /* characters by code point, then the order of seeds: settles ties */
    bool single, alive; /* single: one character */
    double score;       /* logarithm of its probability */
    double p;
};

struct unigram_trainer {
    const struct vocabulary *v;
    /* Words: NUL-terminated, in order of their bytes. */
    char *text; /* owned */
    size_t text_n;
    uint32_t *at;    /* owned; (words) into text */
    int64_t *counts; /* owned; (words) */
    size_t words;
    int64_t total; /* sum of counts */

    struct piece *pieces; /* owned */
    size_t count, alive;
    struct trie trie;    /* texts to indices of pieces */
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

static enum status take_words(struct unigram_trainer *u, const struct word_table *table)
{
    struct word_table parts = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < table->count && st == STATUS_OK; i++)
        st = add_parts(u->v, &parts, table->text + table->words[i].at, table->words[i].n,
                       table->words[i].count);
    if (st == STATUS_OK)
        st = sort_words(u, &parts);
    word_table_release(&parts);
    return st;
}

/* ---- Pieces ---- */

static enum status index_pieces(struct unigram_trainer *u)
{
    trie_release(&u->trie);
    u->trie = (struct trie){0};
    for (size_t i = 0; i < u->count; i++)
        TRY(trie_insert(&u->trie, u->text + u->pieces[i].at, u->pieces[i].n, (int32_t)i));
    return STATUS_OK;
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
    return index_pieces(u);
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
            u->pieces[letter] = (struct piece){.at = u->at[w] + i, .n = n, .single = true};
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
        u->pieces[u->count] = (struct piece){.at = seeds[i].at, .n = seeds[i].n};
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
    return index_pieces(u);
}

/* ---- Ways through a word ---- */

struct edge {
    uint32_t begin, end; /* bytes of the word */
    int32_t piece;
};

/* Room for one word. */
struct lattice {
    struct edge *edges; /* owned */
    size_t count, capacity;
    long double forward[4 * LONGEST_WORD + 1], backward[4 * LONGEST_WORD + 1];
    double best[4 * LONGEST_WORD + 1];
    struct edge last[4 * LONGEST_WORD + 1]; /* of the best way to each place */
};

/* All pieces in a word, by where they begin. */
static enum status find_edges(const struct unigram_trainer *u, struct lattice *l, const char *s,
                              size_t n)
{
    l->count = 0;
    for (size_t at = 0; at < n; at++) {
        uint32_t node = TRIE_ROOT;
        if (((unsigned char)s[at] & 0xC0) == 0x80)
            continue;
        for (size_t i = at; i < n;) {
            node = trie_next(&u->trie, node, (unsigned char)s[i++]);
            if (node == 0)
                break;
            int32_t piece = u->trie.values[node];
            if (piece < 0 || !u->pieces[piece].alive)
                continue;
            if (l->count == l->capacity)
                TRY(mem_grow(&l->edges, &l->capacity, l->count + 1, sizeof *l->edges,
                             "pieces in a word"));
            l->edges[l->count++] = (struct edge){(uint32_t)at, (uint32_t)i, piece};
        }
    }
    return STATUS_OK;
}

/* Add how often each piece is expected in count times this word; returns the logarithm of the word's
 * probability. */
static double expect(const struct unigram_trainer *u, struct lattice *l, size_t n, double count,
                     double *sums)
{
    memset(l->forward, 0, (n + 1) * sizeof *l->forward);
    memset(l->backward, 0, (n + 1) * sizeof *l->backward);
    l->forward[0] = l->backward[n] = 1;
    for (size_t i = 0; i < l->count; i++) {
        const struct edge *e = &l->edges[i];
        l->forward[e->end] += l->forward[e->begin] * u->pieces[e->piece].p;
    }
    long double scale = count / l->forward[n];
    for (size_t i = l->count; i > 0; i--) {
        const struct edge *e = &l->edges[i - 1];
        long double behind = l->backward[e->end] * u->pieces[e->piece].p;
        l->backward[e->begin] += behind;
        sums[e->piece] += (double)(l->forward[e->begin] * behind * scale);
    }
    return (double)logl(l->forward[n]);
}

/* The best way: l->last of each place leads back from n to 0. Returns its score. */
static double search(const struct unigram_trainer *u, struct lattice *l, size_t n)
{
    for (size_t i = 1; i <= n; i++)
        l->last[i].end = 0; /* no way yet */
    l->best[0] = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct edge *e = &l->edges[i];
        double score = l->best[e->begin] + u->pieces[e->piece].score;
        if (l->last[e->end].end != 0 && !(score > l->best[e->end]))
            continue;
        l->best[e->end] = score;
        l->last[e->end] = *e;
    }
    return l->best[n];
}

/* Run over the words of one part: expected occurrences, or those on the best ways. */
static enum status run_part(struct unigram_trainer *u, struct lattice *l, int part, bool best)
{
    double *sums = u->sums[part];
    u->likelihood[part] = 0;
    memset(sums, 0, u->count * sizeof *sums);
    for (size_t w = u->words * (size_t)part / PARTS; w < u->words * ((size_t)part + 1) / PARTS;
         w++) {
        const char *s = u->text + u->at[w];
        size_t n = strlen(s);
        double count = (double)u->counts[w];
        TRY(find_edges(u, l, s, n));
        if (!best) {
            u->likelihood[part] += count * expect(u, l, n, count, sums);
            continue;
        }
        search(u, l, n);
        for (size_t end = n; end > 0; end = l->last[end].begin)
            sums[l->last[end].piece] += count;
    }
    return STATUS_OK;
}

/* All parts into u->sum; *likelihood is that of the words (NULL: not wanted), best ways: of none. */
static enum status run(struct unigram_trainer *u, bool best, double *likelihood)
{
    enum status failed = STATUS_OK;
    for (size_t i = 0; i < u->count; i++)
        u->pieces[i].p = exp(u->pieces[i].score);
#pragma omp parallel for schedule(dynamic, 1)
    for (int part = 0; part < PARTS; part++) {
        struct lattice *l;
        enum status st = mem_alloc_raw(1, sizeof *l, "ways through a word", &l);
        if (st == STATUS_OK) {
            l->edges = NULL;
            l->count = l->capacity = 0;
            st = run_part(u, l, part, best);
            mem_free(l->edges);
        }
        mem_free(l);
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
        struct piece *p = &u->pieces[i];
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
    uint32_t piece;
};

static int compare_losses(const void *a, const void *b)
{
    const struct loss *p = a, *q = b;
    if (p->loss != q->loss)
        return p->loss > q->loss ? -1 : 1;
    return (p->piece > q->piece) - (p->piece < q->piece); /* the order of seeds: by score and bytes */
}

/*
 * What the likelihood loses without a piece that the best ways use sum[i] times: they take the best
 * way to write it with others. *free_to_go: the best way to write it is not itself.
 */
static enum status loss_of(const struct unigram_trainer *u, struct lattice *l, size_t i,
                           double total, double *loss, bool *free_to_go)
{
    const struct piece *p = &u->pieces[i];
    const char *s = u->text + p->at;
    size_t kept = 0, parts = 0;
    TRY(find_edges(u, l, s, p->n));
    for (size_t k = 0; k < l->count; k++)
        if (l->edges[k].piece != (int32_t)i)
            l->edges[kept++] = l->edges[k];
    l->count = kept;
    *free_to_go = search(u, l, p->n) > p->score;
    for (size_t end = p->n; end > 0; end = l->last[end].begin)
        parts++;
    double others = 0, log_total = log(total + u->sum[i] * (double)(parts - 1));
    for (size_t end = p->n; end > 0; end = l->last[end].begin)
        others += log(u->sum[l->last[end].piece] + u->sum[i]) - log_total;
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
    TRY_GOTO(done, mem_alloc(1, sizeof *l, "ways through a word", &l));
    for (size_t i = 0; i < u->count; i++) {
        struct piece *p = &u->pieces[i];
        bool free_to_go = false;
        kept += p->single;
        if (p->single || !p->alive)
            continue;
        double loss = 0;
        if (u->sum[i] > 0)
            TRY_GOTO(done, loss_of(u, l, i, total, &loss, &free_to_go));
        if (u->sum[i] > 0 && !free_to_go)
            losses[count++] = (struct loss){loss, (uint32_t)i};
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
    if (l != NULL)
        mem_free(l->edges);
    mem_free(l);
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
    const struct piece *p = a, *q = b;
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
    TRY(compact(u, true));
    TRY(mem_alloc(v->count + u->count, sizeof *v->scores, "scores of pieces", &v->scores));
    for (size_t i = 0; i < u->count; i++) {
        int32_t id;
        TRY(vocabulary_add(v, u->text + u->pieces[i].at, u->pieces[i].n, &id));
        if (id >= v->specials)
            v->scores[id] = u->pieces[i].score;
    }
    return STATUS_OK;
}

enum status train_unigram(struct vocabulary *v, const struct word_table *table,
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
    trie_release(&u.trie);
    mem_free(u.pieces);
    mem_free(u.text);
    mem_free(u.at);
    mem_free(u.counts);
    return st;
}
