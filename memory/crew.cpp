// Threads that embed questions and compare them with a view without Python, so that nobody waits for its lock on the way; whoever
// waits for an answer is woken by a byte in a pipe. What is passed is kept by the caller until its job is through.
#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include <unistd.h>

extern "C" int64_t memrelay_minilm_run(const void *, const int32_t *, const int64_t *, int64_t, float *, float *);
extern "C" int64_t memrelay_compare(const void *view, const void *question, const void *found);

namespace {

constexpr int64_t broken = -1, dimensions = 384;
constexpr int64_t words_at_a_time = 256, texts_at_a_time = 8;  // what is made of them shall stay in the cache
constexpr size_t untold = 64;  // jobs that are through, after which somebody is told though nobody waits

struct Job {
    int64_t number;
    const void *model;  // of a question that is embedded, else null
    const int32_t *ids;
    int64_t length, axes;
    float *vector, *pieces;
    std::shared_ptr<Job> after;
    const void *view, *question, *found;  // of a comparison, else null
    bool tells, done = false;
    int64_t result = 0;

    bool can_begin() const { return !after || after->done; }
};
using Given = std::shared_ptr<Job>;

struct Taken {
    Given jobs[texts_at_a_time];
    int64_t count = 0;
};

struct Crew {
    int pipe;
    std::mutex lock;
    std::condition_variable work;
    std::deque<Given> waiting;
    std::unordered_map<int64_t, Given> passes;  // that are not through, or had no memory
    std::vector<Given> through;
    std::vector<std::thread> threads;
    size_t going = 0;  // jobs that are not through
    bool told = false, over = false;

    void add(Given job)
    {
        through.reserve(through.size() + going + 1);  // so that a thread that ends one needs no memory
        waiting.push_back(std::move(job));
        going++;
        work.notify_one();
    }

    std::deque<Given>::iterator next()
    {
        return std::find_if(waiting.begin(), waiting.end(), [](const Given &job) { return job->can_begin(); });
    }

    // questions that wait for the same model are embedded together: its weights are read once
    Taken take()
    {
        Taken taken;
        int64_t words = 0;
        for (auto at = next(); at != waiting.end() && taken.count < texts_at_a_time;) {
            const Job &job = **at, &first = taken.count ? *taken.jobs[0] : job;
            if (taken.count && (job.model != first.model || words + job.length > words_at_a_time)) {
                ++at;
                continue;
            }
            words += job.length;
            taken.jobs[taken.count++] = std::move(*at);
            at = waiting.erase(at);
            if (!taken.jobs[0]->model) break;
        }
        return taken;
    }

    void end(Taken &taken)
    {
        bool tells = false;
        for (int64_t i = 0; i < taken.count; i++) {
            Given &job = taken.jobs[i];
            job->done = true;
            tells = tells || job->tells;
            if (job->model && job->result != broken) passes.erase(job->number);
            through.push_back(std::move(job));
            going--;
        }
        work.notify_all();  // what follows them can begin
        if (told || (!tells && through.size() < untold)) return;
        told = true;
        const char byte = 1;
        while (write(pipe, &byte, 1) < 0 && errno == EINTR) {}
    }

    void run()
    {
        std::unique_lock<std::mutex> held(lock);
        for (;;) {
            work.wait(held, [&] { return over || next() != waiting.end(); });
            if (over) return;
            Taken taken = take();
            held.unlock();
            if (taken.jobs[0]->model)
                embed(taken);
            else
                compare(*taken.jobs[0]);
            held.lock();
            end(taken);
        }
    }

    static void embed(const Taken &taken)
    {
        int64_t result = broken;
        try {
            std::vector<int64_t> lengths;
            std::vector<int32_t> ids;
            for (int64_t i = 0; i < taken.count; i++) {
                const Job &job = *taken.jobs[i];
                lengths.push_back(job.length);
                ids.insert(ids.end(), job.ids, job.ids + job.length);
            }
            const void *model = taken.jobs[0]->model;
            const int64_t axes = taken.jobs[0]->axes;
            std::vector<float> vectors(taken.count * dimensions), pieces(ids.size() * axes);
            if (!memrelay_minilm_run(model, ids.data(), lengths.data(), taken.count, vectors.data(), pieces.data())) {
                const float *vector = vectors.data(), *piece = pieces.data();
                for (int64_t i = 0; i < taken.count; i++) {
                    const Job &job = *taken.jobs[i];
                    std::memcpy(job.vector, vector, dimensions * sizeof(float));
                    std::memcpy(job.pieces, piece, job.length * axes * sizeof(float));
                    vector += dimensions;
                    piece += job.length * axes;
                }
                result = 0;
            }
        } catch (const std::exception &) {
        }
        for (int64_t i = 0; i < taken.count; i++) taken.jobs[i]->result = result;
    }

    static void compare(Job &job)
    {
        try {
            if (job.after && job.after->result == broken) job.result = broken;
            if (job.result != broken && job.view) job.result = memrelay_compare(job.view, job.question, job.found);
        } catch (const std::exception &) {
            job.result = broken;
        }
    }
};

}  // namespace

// So many threads; who waits is told by a byte in `pipe`. Null: there are none to be had.
extern "C" void *memrelay_crew_open(int64_t threads, int64_t pipe)
{
    sigset_t every, before;
    sigfillset(&every);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&every, fault);  // of the thread itself
    pthread_sigmask(SIG_SETMASK, &every, &before);  // signals are for the thread that Python listens in
    Crew *crew = nullptr;
    try {
        crew = new Crew;
        crew->pipe = int(pipe);
        for (int64_t i = 0; i < threads; i++) crew->threads.emplace_back([crew] { crew->run(); });
    } catch (const std::exception &) {  // with fewer than that, if there is one
        if (crew && crew->threads.empty()) {
            delete crew;
            crew = nullptr;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return crew;
}

// Embed a question: `ids` (length) → `vector` (384), `pieces` (length, axes). Nobody is told at once. 0: it will be done.
extern "C" int64_t memrelay_crew_embed(void *of, int64_t number, const void *model, const int32_t *ids, int64_t length,
                                       int64_t axes, float *vector, float *pieces)
{
    Crew &crew = *static_cast<Crew *>(of);
    std::lock_guard<std::mutex> held(crew.lock);
    try {
        auto job = std::make_shared<Job>(
            Job{number, model, ids, length, axes, vector, pieces, nullptr, nullptr, nullptr, nullptr, false});
        crew.passes[number] = job;
        crew.add(std::move(job));
        return 0;
    } catch (const std::exception &) {
        crew.passes.erase(number);
        return broken;
    }
}

// Compare a question (see signals.cpp; null: nothing) once the one of number `after` is embedded (0: it is). 0: it will be done.
extern "C" int64_t memrelay_crew_compare(void *of, int64_t number, int64_t after, const void *view, const void *question,
                                         const void *found)
{
    Crew &crew = *static_cast<Crew *>(of);
    std::lock_guard<std::mutex> held(crew.lock);
    try {
        const auto at = crew.passes.find(after);
        crew.add(std::make_shared<Job>(Job{number, nullptr, nullptr, 0, 0, nullptr, nullptr,
                                           at == crew.passes.end() ? nullptr : at->second, view, question, found, true}));
        return 0;
    } catch (const std::exception &) {
        return broken;
    }
}

// Nobody wants to know any more: a comparison that has not begun will find nothing.
extern "C" int64_t memrelay_crew_drop(void *of, int64_t number)
{
    Crew &crew = *static_cast<Crew *>(of);
    std::lock_guard<std::mutex> held(crew.lock);
    for (const Given &job : crew.waiting)
        if (job->number == number && !job->model) job->view = nullptr;
    return 0;
}

// Takes up to `most` jobs that are through: their numbers, and what came of them (-1: there was no memory). Returns how many.
extern "C" int64_t memrelay_crew_through(void *of, int64_t *numbers, int64_t *results, int64_t most)
{
    Crew &crew = *static_cast<Crew *>(of);
    std::lock_guard<std::mutex> held(crew.lock);
    crew.told = false;
    const int64_t count = std::min<int64_t>(most, crew.through.size());
    for (int64_t i = 0; i < count; i++) {
        numbers[i] = crew.through[i]->number;
        results[i] = crew.through[i]->result;
    }
    crew.through.erase(crew.through.begin(), crew.through.begin() + count);
    return count;
}

// Waits for what is being done; what waits is not.
extern "C" void memrelay_crew_close(void *of)
{
    Crew *crew = static_cast<Crew *>(of);
    {
        std::lock_guard<std::mutex> held(crew->lock);
        crew->over = true;
    }
    crew->work.notify_all();
    for (std::thread &thread : crew->threads) thread.join();
    delete crew;
}
