package dist

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jouleml/joule/internal/debug"
)

// A Placer is a Transport whose ranks are taken to be on several machines, wherever they are: those with different numbers share no memory.
type Placer interface {
	Machine() int
}

// machines is where the ranks of a Comm are. Ranks are on one machine if they see common memory: two containers of one host name that have a /dev/shm each are two machines. Each rank puts a mark there for that, in a file, and looks
// for those of the others: a file of the same name on another machine has another mark.
type machines struct {
	of       []int   // by rank: its machine; they are numbered in the order of their first ranks
	ranks    [][]int // by machine, ascending
	own      []int   // those of this rank's machine
	me       int     // this rank's place among them
	messages bool    // whether nothing is added up in common memory: it is not wanted, there is none, or each rank has a machine of its own
}

// several reports whether there is more than one machine.
func (m *machines) several() bool { return len(m.ranks) > 1 }

// widest is the number of ranks of the machine that has most.
func (m *machines) widest() int {
	most := 0
	for _, r := range m.ranks {
		most = max(most, len(r))
	}
	return most
}

// on is the rank of a machine that stands for a rank of another one there: those of a machine share them out.
func (m *machines) on(machine, rank int) int {
	there := m.ranks[machine]
	return there[slices.Index(m.ranks[m.of[rank]], rank)%len(there)]
}

// brings is the place, on this machine, of the rank that has or gets what comes of any rank.
func (m *machines) brings(rank int) int { return slices.Index(m.own, m.on(m.of[m.own[0]], rank)) }

// newMachines sorts ranks by what they have in common; me is this rank.
func newMachines[T comparable](keys []T, me int) *machines {
	m := &machines{}
	numbers := map[T]int{}
	for r, k := range keys {
		i, ok := numbers[k]
		if !ok {
			i = len(m.ranks)
			numbers[k], m.ranks = i, append(m.ranks, nil)
		}
		m.of, m.ranks[i] = append(m.of, i), append(m.ranks[i], r)
	}
	m.own = m.ranks[m.of[me]]
	m.me = slices.Index(m.own, me)
	return m
}

// pretended is the machine on which a rank is to believe itself (JOULE_DEBUG=machines=…): of so many with ranks in a row, as even as possible, or the one of a letter.
func pretended(setting string, rank, ranks int) (int, error) {
	if n, err := strconv.Atoi(setting); err == nil && n > 0 {
		n = min(n, ranks)
		for i := range n {
			if _, hi := Part(ranks, i, n); rank < hi {
				return i, nil
			}
		}
	}
	if setting == "" {
		return 0, nil
	}
	if strings.Trim(setting, "abcdefghijklmnopqrstuvwxyz") != "" {
		return 0, fmt.Errorf("dist: JOULE_DEBUG: machines=%s must be a number of machines, or a letter for the machine of each rank, such as aabb or, repeated, ab", setting)
	}
	return int(setting[rank%len(setting)]), nil
}

// A card is what each rank tells all others about where it is.
const (
	cardMark  = 0  // of its file
	cardHost  = 8  // checksum of the machine's name
	cardLabel = 16 // of a pretended machine
	cardMode  = 24 // 1: messages are wanted
	cardName  = 25 // of its file; empty: it has none
	cardSize  = 72
)

// find finds out, once, on which machine each rank is.
func (c *Comm) find() (*machines, error) {
	if m := c.home.Load(); m != nil {
		return m, nil
	}
	n, me := c.Size(), c.Rank()
	root, number := c, me
	for ; root.of != nil; root = root.of {
		number = root.members[number]
	}
	label, err := pretended(debug.Get("machines"), number, root.Size())
	if err != nil {
		return nil, err
	}
	if p, ok := root.t.(Placer); ok && debug.Get("machines") == "" {
		label = p.Machine()
	}
	host, _ := os.Hostname()
	sum := fnv.New64a()
	sum.Write([]byte(host))
	mark := rand.Uint64()
	card := make([]byte, cardSize)
	binary.LittleEndian.PutUint64(card[cardMark:], mark)
	binary.LittleEndian.PutUint64(card[cardHost:], sum.Sum64())
	binary.LittleEndian.PutUint64(card[cardLabel:], uint64(label))
	if debug.Get("ranks") == "messages" {
		card[cardMode] = 1
	}
	if name, err := makeMark(c.folder, mark); err == nil {
		defer removeMemory(c.folder, name)
		if len(name) <= cardSize-cardName {
			copy(card[cardName:], name)
		}
	}
	cards := make([]byte, n*cardSize)
	if err := c.allGather(card, slices.Repeat([]int{cardSize}, n), cards); err != nil {
		return nil, err
	}
	of := func(r, at int) uint64 { return binary.LittleEndian.Uint64(cards[r*cardSize+at:]) }
	// The first rank whose file is here leads this machine.
	leader := make([]byte, 8)
	put64(leader, uint64(n)) // none
	nameless := false
	for r := range n {
		name := strings.TrimRight(string(cards[r*cardSize+cardName:(r+1)*cardSize]), "\x00")
		nameless = nameless || name == ""
		if get64(leader) == uint64(n) && name != "" && of(r, cardLabel) == uint64(label) && hasMark(c.folder, name, of(r, cardMark)) {
			put64(leader, uint64(r))
		}
	}
	all := make([]byte, 8*n) // nobody takes its file away before all have looked for it
	if err := c.allGather(leader, slices.Repeat([]int{8}, n), all); err != nil {
		return nil, err
	}
	leaders := make([]uint64, n)
	consistent := !nameless
	for r := range leaders {
		leaders[r] = get64(all[8*r:])
		consistent = consistent && leaders[r] <= uint64(r)
	}
	for _, l := range leaders {
		consistent = consistent && leaders[l] == l
	}
	var m *machines
	if consistent {
		m = newMachines(leaders, me)
	} else { // without memory names must do, for what is counted
		keys := make([][2]uint64, n)
		for r := range keys {
			keys[r] = [2]uint64{of(r, cardHost), of(r, cardLabel)}
		}
		m = newMachines(keys, me)
	}
	m.messages = !consistent || cards[cardMode] == 1 || m.widest() == 1 || n > chunk/16 // rank 0 decides what is wanted; rooms have a line for each rank
	c.home.Store(m)
	return m, nil
}

// Machines says on which machine each rank is; they are numbered in the order of their first ranks. All ranks must call it. From then on Stats says what went between machines.
func (c *Comm) Machines() (of []int, err error) {
	defer c.begin("a search for the ranks of each machine")(&err)
	if c.broken != nil {
		return nil, c.broken
	}
	m, err := c.find()
	if err != nil {
		return nil, err
	}
	return slices.Clone(m.of), nil
}
