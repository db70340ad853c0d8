// Signals of one question in one go, without Python between the steps; memory/signals.py does the same with numpy, and says
// what each is. What is passed is kept by the caller and laid out as memory/compiled.py lays it out.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

extern "C" void memrelay_maxsim(const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked,
                                int64_t groups, int64_t width, float *best);
extern "C" void memrelay_dots(const float *rows, const uint8_t *wanted, int64_t count, int64_t width, const float *vector,
                              double *out);

namespace {

constexpr int64_t beside = 16;  // as in maxsim.cpp
constexpr double nothing = 1e-9, unknown = __builtin_nan("");

struct Block {
    int64_t low, count;  // its pieces have the numbers from `low` on
    const float *vectors;
    int64_t entries;
    const int32_t *codes, *rows;  // which row bears which word, by word …
    const float *often;           // … and how often
};

struct View {
    int64_t pieces, memories, dimensions, width;
    int64_t blocks;
    const Block *block;
    const int64_t *memory, *session, *speaker, *said, *before, *after;
    const uint8_t *known, *episode, *user_side;
    const double *lengths, *log_lengths, *times;
    const float *shape;  // (pieces, 4): asks, time, number, name
    const int64_t *late_at, *late_lengths;
};

struct Term {
    int32_t code;  // -1: no piece has the word
    int32_t digits;
    double times;
};

enum Name {
    meaning, around, words, words_around, match, reply_to, window, wide, session, session_words, replies, asks, length, when,
    number, name, date, speaker, recency, own, yours, exact, echo, names
};
enum Flag { asks_when = 1, asks_number = 2, asks_name = 4, asks_yours = 8 };

// to [0, 1]; when all are the same, ones if there is anything, else zeros
void scale(double *values, int64_t count)
{
    if (!count) return;
    auto [low, high] = std::minmax_element(values, values + count);
    const double from = *low, spread = *high - *low, flat = *high > nothing;
    for (int64_t i = 0; i < count; i++) values[i] = spread < nothing ? flat : (values[i] - from) / spread;
}

struct Weighed {
    std::vector<double> found, covered, exact;
};

Weighed weigh(const View &v, const uint8_t *mask, int64_t count, const Term *terms, int64_t many, double *rarity)
{
    Weighed w{std::vector<double>(v.pieces), std::vector<double>(v.pieces), std::vector<double>(v.pieces)};
    double total = 0;
    for (int64_t i = 0; i < v.pieces; i++) total += mask[i] ? v.lengths[i] : 0.0;
    const double average = std::max(total / double(count), 1.0);
    double rare = 0, codes = 0;
    for (int64_t t = 0; t < many; t++) {
        const Term &term = terms[t];
        auto each = [&](auto &&act) {
            for (int64_t b = 0; term.code >= 0 && b < v.blocks; b++) {
                const Block &block = v.block[b];
                auto [first, last] = std::equal_range(block.codes, block.codes + block.entries, term.code);
                for (auto at = first - block.codes; at < last - block.codes; at++) {
                    const int64_t piece = block.low + block.rows[at];
                    if (mask[piece]) act(piece, double(block.often[at]));
                }
            }
        };
        double bearing = 0;
        each([&](int64_t, double) { bearing += 1; });
        rarity[t] = std::log(1.0 + (double(count) - bearing + 0.5) / (bearing + 0.5));
        rare += rarity[t];
        if (bearing == 0) continue;
        codes += term.digits ? rarity[t] : 0.0;
        each([&](int64_t piece, double often) {
            const double spread = 1.2 * (0.25 + 0.75 * v.lengths[piece] / average);
            w.found[piece] += term.times * rarity[t] * often * 2.2 / (often + spread);
            w.covered[piece] += rarity[t];
            if (term.digits) w.exact[piece] += rarity[t];
        });
    }
    for (auto &share : w.covered) share /= std::max(rare, nothing);
    for (auto &share : w.exact) share /= std::max(codes, nothing);
    return w;
}

// the best of them, and what was said around the very best; `every` → those that are chosen, in rising order
std::vector<int64_t> choose(const View &v, const std::vector<int64_t> &every, const std::vector<double> &score, int64_t whole,
                            int64_t closely, int64_t about)
{
    const int64_t count = every.size();
    if (count <= whole) return every;
    std::vector<int64_t> order(count);
    for (int64_t i = 0; i < count; i++) order[i] = i;
    auto better = [&](int64_t a, int64_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; };
    std::nth_element(order.begin(), order.begin() + closely, order.end(), better);
    std::nth_element(order.begin(), order.begin() + about, order.begin() + closely, better);
    std::vector<uint8_t> wanted(v.memories + 1), taken(v.pieces);
    auto want = [&](int64_t memory) {
        if (memory >= 0) wanted[memory] = 1;
        return memory;
    };
    for (int64_t i = 0; i < about; i++) {
        const int64_t piece = every[order[i]];
        if (!v.episode[piece]) continue;
        const int64_t here = want(v.memory[piece]);
        for (const int64_t *chain : {v.before, v.after}) {
            const int64_t one = want(chain[here]);
            if (one >= 0) want(chain[one]);
        }
    }
    for (int64_t i = 0; i < closely; i++) taken[every[order[i]]] = 1;
    std::vector<int64_t> chosen;
    for (int64_t piece : every)
        if (taken[piece] || wanted[v.memory[piece]]) chosen.push_back(piece);
    return chosen;
}

// the candidates by memory (a round) and by session; -1: no such round among them
struct Rounds {
    std::vector<int32_t> of_piece, before, after, session;
    int32_t count = 0, sessions = 0;

    Rounds(const View &v, const int64_t *numbers, int64_t n) : of_piece(n)
    {
        std::vector<int32_t> local(v.memories + 1, -1);
        std::vector<int64_t> memory, code;
        int64_t highest = 0;
        for (int64_t i = 0; i < n; i++) {
            int32_t &round = local[v.memory[numbers[i]]];
            if (round < 0) {
                round = count++;
                memory.push_back(v.memory[numbers[i]]);
                code.push_back(v.session[numbers[i]]);
                highest = std::max(highest, code.back());
            }
            of_piece[i] = round;
        }
        std::vector<int32_t> known(highest + 1, -1);
        for (int32_t round = 0; round < count; round++) {
            auto in = [&](int64_t other) { return other < 0 ? -1 : local[other]; };
            before.push_back(in(v.before[memory[round]]));
            after.push_back(in(v.after[memory[round]]));
            int32_t alone = -1;  // what belongs to no session is not lifted by others of its sort
            int32_t &place = code[round] ? known[code[round]] : alone;
            if (place < 0) place = sessions++;
            session.push_back(place);
        }
    }

    int32_t earlier(int64_t piece) const { return before[of_piece[piece]]; }
    int32_t later(int64_t piece) const { return after[of_piece[piece]]; }

    std::vector<double> best(const double *values) const
    {
        std::vector<double> found(count, -HUGE_VAL);
        for (size_t i = 0; i < of_piece.size(); i++) found[of_piece[i]] = std::max(found[of_piece[i]], values[i]);
        return found;
    }
};

struct Question {
    const uint8_t *mask;  // the pieces that may be found
    const float *vector;
    const Term *terms;
    int64_t many;
    int64_t whole, closely, about;
    int64_t asked;  // word pieces, 0: none
    const float *pieces;
    double scaled_by;
    const int32_t *word_of, *word_ends;  // the terms of each word piece's word: those up to its end
    int64_t flags;
    const double *dated;  // (pieces of the view) how well each fits a date, or null
    int64_t speaker;      // the one who is named, or -1
    double now;
    const float *table;    // what each signal weighs
    const double *limits;  // as Limit has them; null: what fits is somebody else's business
    int64_t said;
    double unknown;
};

struct Found {  // each with room for all pieces
    int64_t *numbers;
    float *values;  // (n, names)
    double *cosine, *covered, *met;
    float *total;
    int64_t *order;  // of the n, the best first
    uint8_t *fits;
    double *rarity;  // (terms)
};

enum Limit {
    by_best, by_three, by_met, usually, answerable, near_cosine, near_met, near_covered, near_placed, plain_covered, plain_cosine,
    plain_met, plain_exact, floor_share
};

struct Near {
    std::vector<int64_t> numbers;
    std::vector<double> near, found, exact;
};

// every piece compared by meaning and by words; those that are worth a closer look
Near nearest(const View &v, const Question &q, const Found &out)
{
    Near result;
    std::vector<int64_t> every;
    for (int64_t i = 0; i < v.pieces; i++)
        if (q.mask[i]) every.push_back(i);
    if (every.empty()) return result;
    std::vector<double> cosines(v.pieces, unknown);
    for (int64_t b = 0; b < v.blocks; b++) {
        const Block &block = v.block[b];
        memrelay_dots(block.vectors, q.mask + block.low, block.count, v.dimensions, q.vector, cosines.data() + block.low);
    }
    double sum = 0, met = 0;
    for (int64_t piece : every) {
        if (!v.known[piece] || !std::isfinite(cosines[piece])) cosines[piece] = unknown;
        if (!std::isnan(cosines[piece])) sum += cosines[piece], met += 1;
    }
    const double usual = met ? sum / met : 0.0;  // what has no vector yet is taken for as near as the others are
    const Weighed w = weigh(v, q.mask, every.size(), q.terms, q.many, out.rarity);
    std::vector<double> score, by_words;
    for (int64_t piece : every) {
        score.push_back(std::isnan(cosines[piece]) ? usual : cosines[piece]);
        by_words.push_back(w.found[piece]);
    }
    scale(score.data(), score.size());
    scale(by_words.data(), by_words.size());
    for (size_t i = 0; i < score.size(); i++) score[i] += by_words[i];
    result.numbers = choose(v, every, score, q.whole, q.closely, q.about);
    for (size_t i = 0; i < result.numbers.size(); i++) {
        const int64_t piece = result.numbers[i];
        out.numbers[i] = piece;
        out.cosine[i] = cosines[piece];
        out.covered[i] = w.covered[piece];
        result.near.push_back(std::isnan(cosines[piece]) ? usual : cosines[piece]);
        result.found.push_back(w.found[piece]);
        result.exact.push_back(w.exact[piece]);
    }
    return result;
}

// of each word piece the rarity of its word; function words count little. Sum 1
std::vector<float> weights_of(const Question &q, const double *rarity)
{
    const double most = q.many ? *std::max_element(rarity, rarity + q.many) : 1.0;
    std::vector<double> weights(q.asked, 0.08 * most);
    double sum = 0;
    for (int64_t j = 0; j < q.asked; j++) {
        const int32_t first = j ? q.word_ends[j - 1] : 0;
        for (int32_t at = first; at < q.word_ends[j]; at++)
            weights[j] = at == first ? rarity[q.word_of[at]] : std::max(weights[j], rarity[q.word_of[at]]);
        sum += weights[j];
    }
    std::vector<float> found(q.asked);
    for (int64_t j = 0; j < q.asked; j++) found[j] = float(weights[j] / std::max(sum, nothing));
    return found;
}

// which of them may be returned: none when nothing fits well enough, else those not far behind the best (memory/rank.py)
void fit(const View &v, const Question &q, const Found &out, int64_t n)
{
    const double *limits = q.limits;
    std::vector<double> best;
    double most_met = -HUGE_VAL;
    float most = out.total[0];
    for (int64_t i = 0; i < n; i++) {
        const bool same = v.said[out.numbers[i]] == q.said;  // what was said before in the same words is no answer
        best.push_back(same || std::isnan(out.cosine[i]) ? 0.0 : out.cosine[i]);
        most_met = std::max(most_met, same || std::isnan(out.met[i]) ? 0.0 : out.met[i]);
        most = std::max(most, out.total[i]);
    }
    const int64_t three = std::min<int64_t>(3, n);
    std::partial_sort(best.begin(), best.begin() + three, best.end(), std::greater<>());
    double mean = 0;
    for (int64_t i = 0; i < three; i++) mean += best[i] / double(three);
    const double likely = limits[by_best] * best[0] + limits[by_three] * mean + limits[by_met] * most_met - limits[usually];
    const bool answers = likely - q.unknown > limits[answerable];
    for (int64_t i = 0; i < n; i++) {
        const double cosine = std::isnan(out.cosine[i]) ? 0.0 : out.cosine[i], met = std::isnan(out.met[i]) ? 0.0 : out.met[i];
        const double covered = out.covered[i], placed = out.values[i * names + window];
        const bool beside_it = cosine >= limits[near_cosine] || met >= limits[near_met] || covered >= limits[near_covered] ||
                               placed >= limits[near_placed];
        const bool plain = covered >= limits[plain_covered] || cosine >= limits[plain_cosine] || met >= limits[plain_met];
        // a rare word that stands there is enough, whatever the vectors say
        const bool fits = (beside_it && answers) || (q.unknown == 0 && covered >= limits[plain_exact]);
        out.fits[i] = fits && (plain || out.total[i] >= limits[floor_share] * most);
    }
}

}  // namespace

// Compares all of a view with a question; returns how many pieces were compared closely, of which `found` tells.
extern "C" int64_t memrelay_compare(const View *view, const Question *question, const Found *out)
{
    const View &v = *view;
    const Question &q = *question;
    const Near close = nearest(v, q, *out);
    const int64_t n = close.numbers.size(), asked = q.asked, flags = q.flags;
    if (!n) return 0;
    const int64_t *numbers = close.numbers.data();
    const double *near = close.near.data(), *found = close.found.data(), *cosine = out->cosine, *covered = out->covered;
    const std::vector<float> weights = weights_of(q, out->rarity);
    float *values = out->values;
    double *met = out->met;
    const Rounds rounds(v, numbers, n);
    const int64_t m = std::max<int64_t>(asked, 1);
    std::vector<float> matched(n * m);
    std::fill(met, met + n, unknown);

    std::vector<int64_t> with, at, lengths;
    for (int64_t i = 0; asked && i < n; i++)
        if (v.late_lengths[numbers[i]]) {
            with.push_back(i);
            at.push_back(v.late_at[numbers[i]]);
            lengths.push_back(v.late_lengths[numbers[i]]);
        }
    if (!with.empty()) {
        const int64_t groups = (asked + beside - 1) / beside, row = groups * beside;
        std::vector<float> columns(groups * v.width * beside), best(with.size() * row);
        for (int64_t j = 0; j < asked; j++)
            for (int64_t k = 0; k < v.width; k++)
                columns[((j / beside) * v.width + k) * beside + j % beside] = q.pieces[j * v.width + k] / float(q.scaled_by);
        memrelay_maxsim(reinterpret_cast<const int8_t *const *>(at.data()), lengths.data(), with.size(), columns.data(), groups,
                        v.width, best.data());
        std::vector<double> mean(asked);
        for (size_t i = 0; i < with.size(); i++)
            for (int64_t j = 0; j < asked; j++) mean[j] += best[i * row + j];
        for (auto &value : mean) value /= double(with.size());
        if (int64_t(with.size()) < n)  // a piece without vectors yet is judged by its words
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < asked; j++) matched[i * m + j] = float(0.5 * covered[i] * weights[j]);
        for (size_t i = 0; i < with.size(); i++) {
            double sum = 0;
            for (int64_t j = 0; j < asked; j++) {
                const float value = best[i * row + j];
                sum += double(value) * weights[j];
                matched[with[i] * m + j] = std::max(value - float(mean[j]), 0.0f) * weights[j];
            }
            met[with[i]] = sum;
        }
    }

    // per round, and after the last one what no round meets: nothing
    std::vector<float> best((rounds.count + 1) * m), over(rounds.sessions * m);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            float &most = best[rounds.of_piece[i] * m + j];
            most = std::max(most, matched[i * m + j]);
        }
    std::vector<double> in_session(rounds.sessions);
    for (int32_t round = 0; round < rounds.count; round++)
        for (int64_t j = 0; j < m; j++) {
            float &most = over[rounds.session[round] * m + j];
            most = std::max(most, best[round * m + j]);
        }
    for (int32_t s = 0; s < rounds.sessions; s++)
        for (int64_t j = 0; j < m; j++) in_session[s] += over[s * m + j];

    const std::vector<double> best_near = rounds.best(near), best_found = rounds.best(found);
    std::vector<double> three(3 * rounds.sessions, 0.0);  // the three best rounds of each session by words, none below 0
    for (int32_t round = 0; round < rounds.count; round++) {
        double value = best_found[round], *top = &three[3 * rounds.session[round]];
        for (int place = 0; place < 3; place++)
            if (value > top[place]) std::swap(value, top[place]);
    }

    std::vector<double> column[names];
    for (auto &one : column) one.assign(n, 0.0);
    for (int64_t i = 0; i < n; i++) {
        const int32_t own_round = rounds.of_piece[i], first = rounds.earlier(i), last = rounds.later(i);
        const int32_t none = rounds.count;
        const int32_t second = first < 0 ? -1 : rounds.before[first], second_last = last < 0 ? -1 : rounds.after[last];
        auto row = [&](int32_t round) { return &best[(round < 0 ? none : round) * m]; };
        const float *mine = row(own_round), *b = row(first), *a = row(last), *bb = row(second), *aa = row(second_last);
        double sums[4] = {};
        for (int64_t j = 0; j < m; j++) {
            const float alone = matched[i * m + j], close = std::max(alone, 0.6f * mine[j]);
            const float reply = std::max(close, 0.7f * b[j]);
            sums[0] += alone;
            sums[1] += reply;
            sums[2] += std::max(std::max(close, 0.5f * b[j]), 0.5f * a[j]);
            sums[3] += std::max(std::max(reply, 0.6f * a[j]), std::max(0.5f * bb[j], 0.4f * aa[j]));
        }
        auto told = [&](const std::vector<double> &of) {
            return 0.5 * ((first < 0 ? 0.0 : of[first]) + (last < 0 ? 0.0 : of[last]));
        };
        const int64_t piece = numbers[i];
        const double *top = &three[3 * rounds.session[own_round]];
        column[meaning][i] = near[i];
        column[around][i] = near[i] + told(best_near);
        column[words][i] = found[i];
        column[words_around][i] = found[i] + told(best_found);
        column[match][i] = sums[0];
        column[reply_to][i] = sums[1];
        column[window][i] = sums[2];
        column[wide][i] = sums[3];
        column[session][i] = in_session[rounds.session[own_round]];
        column[session_words][i] = (top[0] + top[1] + top[2]) / 3;
        column[length][i] = v.log_lengths[piece];
    }
    for (int one : {meaning, around, words, words_around, match, reply_to, window, wide, session, session_words, length})
        scale(column[one].data(), n);

    std::vector<double> as_question(n);
    for (int64_t i = 0; i < n; i++) as_question[i] = column[match][i] * v.shape[4 * numbers[i]];
    const std::vector<double> best_question = rounds.best(as_question.data());
    for (int64_t i = 0; i < n; i++) {
        const int64_t piece = numbers[i];
        const float *shape = v.shape + 4 * piece;
        const bool users = v.user_side[piece], of_you = flags & asks_yours;
        const int32_t answered = users ? rounds.earlier(i) : rounds.of_piece[i];
        const double alike = std::isnan(cosine[i]) ? 0.0 : cosine[i];
        column[replies][i] = answered < 0 ? 0.0 : best_question[answered];
        column[asks][i] = -shape[0];
        column[when][i] = flags & asks_when ? shape[1] : 0.0;
        column[number][i] = flags & asks_number ? shape[2] : 0.0;
        column[name][i] = flags & asks_name ? shape[3] : 0.0;
        column[date][i] = q.dated ? q.dated[piece] : 0.0;
        column[speaker][i] = v.speaker[piece] == q.speaker;
        column[recency][i] = std::exp(std::min(v.times[piece] - q.now, 0.0) / (90 * 86400.0));
        column[own][i] = users && !of_you;
        column[yours][i] = !users && of_you;
        column[exact][i] = close.exact[i];
        column[echo][i] = shape[0] * (std::min(std::max(alike, 0.7), 0.9) - 0.7) / -0.2;
    }
    for (int64_t i = 0; i < n; i++) {
        out->total[i] = 0;
        for (int one = 0; one < names; one++) {
            const float value = float(column[one][i]);
            values[i * names + one] = value;
            out->total[i] += value * q.table[one];
        }
        out->order[i] = i;
    }
    const float *total = out->total;
    std::stable_sort(out->order, out->order + n, [&](int64_t a, int64_t b) { return total[a] > total[b]; });
    if (q.limits) fit(v, q, *out, n);
    return n;
}
